//! coracle-pods
