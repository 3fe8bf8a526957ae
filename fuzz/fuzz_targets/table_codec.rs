//! An element of the data plane's maps that can be read is written as the same again.
#![no_main]

use coracle_kernel::net::nftables::{Element, ElementData};
use elements::{SETS, read, set_of, write};
use libfuzzer_sys::fuzz_target;

// The codec alone, without the node around it.
#[allow(dead_code)]
#[path = "../../crates/node/src/service_proxy/elements.rs"]
mod elements;

/// Only the names matter here.
mod rules {
    pub const FRONTENDS: &str = "frontends";
    pub const INSIDE: &str = "inside";
    pub const SLOTS: &str = "slots";
    pub const SLOT_IDS: &str = "slot-ids";
    pub const ENDPOINTS: &str = "endpoints";
    pub const HAIRPINS: &str = "hairpins";
    pub const SOURCES: &str = "sources";
    pub const CLUSTER_IPS: &str = "cluster-ips";
}

fuzz_target!(|input: (u8, bool, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>)| {
    let (set, ipv6, key, key_end, data) = input;
    let set = SETS[usize::from(set) % SETS.len()];
    let element = Element {
        key,
        key_end,
        data: data.map(ElementData::Value),
    };
    let class = |number: u32| (number % 3 == 0).then_some(coracle_dataplane::Class::Reject);
    if let Some((key, value)) = read(set, &element, ipv6, class) {
        assert_eq!(set_of(&key), set);
        let again = write(&key, &value, |_| 3);
        assert_eq!(read(set, &again, ipv6, class), Some((key, value)));
    }
});
