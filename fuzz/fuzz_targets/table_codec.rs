//! An element of the data plane's maps that can be read is written as the same again.
#![no_main]

use coracle_kernel::net::nftables::{Element, ElementData};
use elements::{read, set_of, sets, write};
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
    pub const POLICY_PEERS: &str = "policy-peers";
    pub const POLICY_BLOCKS: &str = "policy-blocks";
    pub const POLICY_EVERYTHING: &str = "policy-everything";
    pub const POLICY_PORTS: &str = "policy-ports";
    pub const POLICY_RANGES: &str = "policy-ranges";

    pub const fn isolated_set(direction: coracle_dataplane::Direction) -> &'static str {
        match direction {
            coracle_dataplane::Direction::Ingress => "isolated-ingress",
            coracle_dataplane::Direction::Egress => "isolated-egress",
        }
    }
}

fuzz_target!(|input: (u8, bool, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>)| {
    let (set, ipv6, key, key_end, data) = input;
    let all = sets().count();
    let Some(set) = sets().nth(usize::from(set) % all) else {
        return;
    };
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
