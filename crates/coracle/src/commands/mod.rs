//! One file a subcommand.

pub mod diagnose;
pub mod image;
mod node_rules;
pub mod path;
pub mod reference;
pub mod status;
pub mod trace;
pub mod up;
