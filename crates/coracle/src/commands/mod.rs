//! One file a subcommand.

pub mod image;
pub mod reference;
pub mod status;
pub mod up;
