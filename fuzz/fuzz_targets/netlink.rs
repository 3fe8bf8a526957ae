//! Whatever comes out of a netlink socket is read or passed over, and elements of nf_tables read back as they were
//! written.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| coracle_kernel::net::fuzzing::read(bytes));
