//! coracle-store
