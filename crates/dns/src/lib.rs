//! coracle-dns
