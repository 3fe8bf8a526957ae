//! Whatever a resolver answers is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| coracle_dns::fuzzing::read_reply(message));
