//! Cases after upstream's topology_test.go.

use super::*;
use crate::endpoint_slice::{Slice, collect};
use crate::fixtures::{ip, slice};
use crate::frontend::Protocol;

fn port(internal_local: bool, external_local: bool) -> ServicePort {
    ServicePort {
        name: String::new(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: external_local.then_some(30_001),
        cluster_ip: ip("10.96.0.1"),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        balancing: crate::class::Balancing::Random,
        health_check_node_port: None,
        sticky: None,
        external_policy_local: external_local,
        internal_policy_local: internal_local,
    }
}

/// Last numbers of the addresses for policy Cluster and Local, and whether there is any endpoint.
fn check(port: &ServicePort, zone: Option<&str>, endpoints: &[&str]) -> (Vec<u8>, Vec<u8>, bool) {
    let slice = slice(
        "s",
        "web",
        r#"[{"name":"","port":80,"protocol":"TCP"}]"#,
        endpoints,
    );
    let slice = Slice::of(&slice, "here");
    let by_port = collect([&slice], false);
    let endpoints = by_port.into_values().next().unwrap_or_default();
    let usable = categorize(&endpoints, port, "here", zone);
    let numbers = |list: &[&Endpoint]| {
        let last = list.iter().map(|endpoint| match endpoint.target.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        });
        last.collect()
    };
    (numbers(&usable.cluster), numbers(&usable.local), usable.any)
}

const CLUSTER: (bool, bool) = (false, false);
const LOCAL: (bool, bool) = (true, false);
const EXTERNAL_LOCAL: (bool, bool) = (false, true);

#[test]
fn endpoints_by_policy_condition_and_hint() {
    type Case<'a> = (
        (bool, bool),
        Option<&'a str>,
        &'a [&'a str],
        (&'a [u8], &'a [u8], bool),
    );
    let cases: &[Case<'_>] = &[
        (CLUSTER, None, &[], (&[], &[], false)),
        (
            CLUSTER,
            None,
            &["10.1.1.1", "10.1.1.2 away", "10.1.1.3 unready"],
            (&[1, 2], &[], true),
        ),
        // Ready ones before ending ones, ending ones before none.
        (
            CLUSTER,
            None,
            &["10.1.1.1 ending", "10.1.1.2 away"],
            (&[2], &[], true),
        ),
        (
            CLUSTER,
            None,
            &["10.1.1.1 ending", "10.1.1.2 unready", "10.1.1.3 dying"],
            (&[1], &[], true),
        ),
        // Zone hints count only if all have them and one is for our zone.
        (
            CLUSTER,
            Some("z1"),
            &["10.1.1.1 zone=z1", "10.1.1.2 zone=z2"],
            (&[1], &[], true),
        ),
        (
            CLUSTER,
            Some("z3"),
            &["10.1.1.1 zone=z1", "10.1.1.2 zone=z2"],
            (&[1, 2], &[], true),
        ),
        (
            CLUSTER,
            Some("z1"),
            &["10.1.1.1 zone=z1", "10.1.1.2"],
            (&[1, 2], &[], true),
        ),
        (
            CLUSTER,
            None,
            &["10.1.1.1 zone=z1", "10.1.1.2 zone=z2"],
            (&[1, 2], &[], true),
        ),
        (
            CLUSTER,
            Some("z1"),
            &["10.1.1.1 zone=z1", "10.1.1.2 unready"],
            (&[1], &[], true),
        ),
        // Node hints come before zone hints.
        (
            CLUSTER,
            Some("z1"),
            &["10.1.1.1 zone=z1 node=here", "10.1.1.2 zone=z1 node=away"],
            (&[1], &[], true),
        ),
        (
            CLUSTER,
            Some("z1"),
            &["10.1.1.1 zone=z1 node=x", "10.1.1.2 zone=z2 node=y"],
            (&[1], &[], true),
        ),
        // Internal policy Local: other nodes' endpoints count only as being there.
        (LOCAL, None, &["10.1.1.1", "10.1.1.2 away"], (&[], &[1], true)),
        (LOCAL, None, &["10.1.1.2 away"], (&[], &[], true)),
        (
            LOCAL,
            None,
            &["10.1.1.1 ending", "10.1.1.2 away"],
            (&[], &[1], true),
        ),
        (LOCAL, None, &["10.1.1.1 unready"], (&[], &[], false)),
        // External policy Local needs both lists.
        (
            EXTERNAL_LOCAL,
            None,
            &["10.1.1.1", "10.1.1.2 away"],
            (&[1, 2], &[1], true),
        ),
        (
            EXTERNAL_LOCAL,
            None,
            &["10.1.1.1 ending", "10.1.1.2 away"],
            (&[2], &[1], true),
        ),
    ];
    for ((internal, external), zone, endpoints, (cluster, local, any)) in cases {
        assert_eq!(
            check(&port(*internal, *external), *zone, endpoints),
            (cluster.to_vec(), local.to_vec(), *any),
            "{endpoints:?} in zone {zone:?}, internal local: {internal}, external local: {external}"
        );
    }
}
