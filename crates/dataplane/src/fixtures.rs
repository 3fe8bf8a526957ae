//! Services and EndpointSlices for tests.

use crate::tables::Config;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub const NODE: &str = "10.0.0.1";

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn config() -> Config {
    Config {
        node_name: "here".into(),
        zone: Some("z1".into()),
        pod_cidrs: vec!["10.244.0.0/16".parse().expect("a range")],
        service_cidrs: vec!["10.96.0.0/12".parse().expect("a range")],
        local_addresses: BTreeSet::from([ip("10.96.0.10")]),
        by_iptables: false,
        load_balancer_pool: vec!["198.51.100.128/25".parse().expect("a range")],
    }
}

pub fn node_addresses() -> BTreeSet<IpAddr> {
    ["127.0.0.1", NODE, "192.0.2.7", "10.96.0.10"].map(ip).into()
}

/// A Service as its `spec`, `status` and labels in JSON say.
pub fn service(name: &str, spec: &str, status: &str) -> Service {
    let text =
        format!(r#"{{"metadata":{{"namespace":"ns","name":"{name}"}},"spec":{spec},"status":{status}}}"#);
    serde_json::from_str(&text).expect("a service")
}

/// One endpoint in words: `10.244.0.5`, and behind it `away` (on another node), `unready`, `ending`, `zone=z1`,
/// `node=here`.
fn endpoint(text: &str) -> String {
    let mut words = text.split_whitespace();
    let address = words.next().expect("an address");
    let (mut node, mut ready, mut serving, mut terminating) = ("here", true, true, false);
    let (mut zones, mut nodes) = (Vec::new(), Vec::new());
    for word in words {
        match word.split_once('=') {
            Some(("zone", zone)) => zones.push(format!(r#"{{"name":"{zone}"}}"#)),
            Some(("node", node)) => nodes.push(format!(r#"{{"name":"{node}"}}"#)),
            _ => match word {
                "away" => node = "away",
                "unready" => (ready, serving) = (false, false),
                "ending" => (ready, terminating) = (false, true),
                "dying" => (ready, serving, terminating) = (false, false, true),
                other => panic!("no such word: {other}"),
            },
        }
    }
    let hints = match (zones.join(","), nodes.join(",")) {
        (zones, nodes) if zones.is_empty() && nodes.is_empty() => String::new(),
        (zones, nodes) => format!(r#","hints":{{"forZones":[{zones}],"forNodes":[{nodes}]}}"#),
    };
    format!(
        r#"{{"addresses":["{address}"],"nodeName":"{node}","conditions":{{"ready":{ready},"serving":{serving},"terminating":{terminating}}}{hints}}}"#
    )
}

/// A slice of a Service; ports in JSON, endpoints in words.
pub fn slice(name: &str, service: &str, ports: &str, endpoints: &[&str]) -> EndpointSlice {
    let endpoints: Vec<String> = endpoints.iter().map(|words| endpoint(words)).collect();
    let family = if endpoints.iter().any(|endpoint| endpoint.contains("fd00:")) {
        "IPv6"
    } else {
        "IPv4"
    };
    let text = format!(
        r#"{{"metadata":{{"namespace":"ns","name":"{name}","labels":{{"kubernetes.io/service-name":"{service}"}}}},
            "addressType":"{family}","ports":{ports},"endpoints":[{}]}}"#,
        endpoints.join(",")
    );
    serde_json::from_str(&text).expect("a slice")
}
