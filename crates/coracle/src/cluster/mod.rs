//! A whole cluster in this process.

pub mod preflight;
pub mod progress;
