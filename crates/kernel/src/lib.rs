//! coracle-kernel
