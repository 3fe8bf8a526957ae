//! coracle-dataplane
