//! The four patch formats of the API, on objects held as JSON: JSON patch, JSON merge patch, strategic merge
//! patch and server-side apply.

pub mod apply;
mod go;
pub mod json;
pub mod merge;
pub mod schema;
pub mod strategic;
#[cfg(test)]
mod testing;

pub use schema::{Kind, ListKind, ScalarKind, Schema, Strategy};
