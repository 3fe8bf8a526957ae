//! coracle-testkit
