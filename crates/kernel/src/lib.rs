//! coracle-kernel

pub mod net;
