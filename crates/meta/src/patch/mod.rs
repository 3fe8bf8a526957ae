//! The four patch formats of the API, on objects held as JSON: JSON patch, JSON merge patch, strategic merge
//! patch and server-side apply.

pub mod schema;

pub use schema::{ListKind, Schema, Strategy};
