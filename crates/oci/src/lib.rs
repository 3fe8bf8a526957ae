//! coracle-oci
