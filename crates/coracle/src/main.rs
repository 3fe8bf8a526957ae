//! coracle: the binary.
fn main() {}
