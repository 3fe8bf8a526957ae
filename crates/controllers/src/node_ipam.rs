//! Node IPAM: gives each node a range of pod addresses out of the cluster's. Upstream: `pkg/controller/nodeipam`.
//!
//! All nodes are one key: which range is free depends on all of them, and the driver does not plan again before it
//! has seen the ranges that were given away.

use coracle_reconcile::{Action, Cache, EventType, Key, PatchType, Plan, Spec, Watch};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use std::sync::Arc;

/// Prefix lengths of a node's range.
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;

/// The controller that gives ranges out of `cluster_cidrs` (one a family), never one that overlaps `service_cidrs`.
pub fn spec(cluster_cidrs: Vec<IpNet>, service_cidrs: Vec<IpNet>) -> Spec {
    Spec::new("node-controller", move |_, cache, _| {
        plan(cache, &cluster_cidrs, &service_cidrs)
    })
    .event_source("cidrAllocator")
    .watch(Watch::changes(|old: Option<&Node>, new: Option<&Node>, _| {
        // Nodes report often; only who exists and what it has matters.
        if old.map(ranges) == new.map(ranges) {
            return Vec::new();
        }
        vec![Key::new("", "nodes")]
    }))
}

fn ranges(node: &Node) -> Vec<String> {
    let spec = node.spec.as_ref();
    let many = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
    if many.is_empty() {
        return spec.and_then(|spec| spec.pod_cidr.clone()).into_iter().collect();
    }
    many
}

fn plan(cache: &Cache, cluster_cidrs: &[IpNet], service_cidrs: &[IpNet]) -> Plan {
    let mut plan = Plan::nothing();
    let mut taken: Vec<IpNet> = service_cidrs.to_vec();
    let mut without: Vec<&Arc<Node>> = Vec::new();
    for node in cache.list::<Node>() {
        let ranges = ranges(node);
        taken.extend(ranges.iter().filter_map(|range| range.parse::<IpNet>().ok()));
        if ranges.is_empty() && node.metadata.deletion_timestamp.is_none() {
            without.push(node);
        }
    }
    for node in without {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let given: Option<Vec<IpNet>> = cluster_cidrs
            .iter()
            .map(|cluster| free(*cluster, &taken))
            .collect();
        match given {
            Some(given) => {
                taken.extend(&given);
                let given: Vec<String> = given.iter().map(ToString::to_string).collect();
                plan.note(format!("{name} gets {}", given.join(" and ")));
                let body = json!({"spec": {"podCIDR": given.first(), "podCIDRs": given}});
                plan.push(Action::patch(&**node, PatchType::Merge, body));
            }
            None => {
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                plan.push(Action::event(
                    &**node,
                    EventType::Normal,
                    "CIDRNotAvailable",
                    message,
                ));
            }
        }
    }
    plan
}

/// The first range of a node's size that overlaps nothing.
fn free(cluster: IpNet, taken: &[IpNet]) -> Option<IpNet> {
    let is_free = |range: &IpNet| {
        !taken
            .iter()
            .any(|other| range.contains(other) || other.contains(range))
    };
    match cluster {
        IpNet::V4(net) => {
            let mut ranges = net.subnets(NODE_PREFIX_V4.max(net.prefix_len())).ok()?;
            ranges
                .find(|range: &Ipv4Net| is_free(&IpNet::V4(*range)))
                .map(IpNet::V4)
        }
        IpNet::V6(net) => {
            let mut ranges = net.subnets(NODE_PREFIX_V6.max(net.prefix_len())).ok()?;
            ranges
                .find(|range: &Ipv6Net| is_free(&IpNet::V6(*range)))
                .map(IpNet::V6)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn cases() {
        let cluster = vec![net("10.244.0.0/16"), net("fd00:10:244::/48")];
        crate::testing::golden(&spec(cluster, vec![net("10.96.0.0/12")]), "node_ipam");
    }

    #[test]
    fn the_first_free_range_is_given_until_none_is_left() {
        let cluster = net("10.244.0.0/23");
        assert_eq!(free(cluster, &[]), Some(net("10.244.0.0/24")));
        assert_eq!(free(cluster, &[net("10.244.0.0/24")]), Some(net("10.244.1.0/24")));
        assert_eq!(free(cluster, &[net("10.244.0.0/24"), net("10.244.1.7/32")]), None);
        assert_eq!(free(cluster, &[net("10.0.0.0/8")]), None);
    }
}
