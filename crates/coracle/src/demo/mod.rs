//! demo
pub mod image;
pub mod program;
