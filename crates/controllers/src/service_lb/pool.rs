//! Where addresses of load balancers come from.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use std::net::IpAddr;

/// Upstream's label of nodes that no load balancer leads to.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The addresses that may be given, and what must not be taken from the nodes.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Addresses, and ranges of them. Empty: the nodes' own.
    pub networks: Vec<IpNet>,
    /// TCP ports on which the nodes themselves serve something, and what.
    pub node_ports: Vec<(u16, &'static str)>,
}

/// The pool on the nodes that there are.
#[derive(Debug)]
pub(super) struct Addresses<'a> {
    pub pool: &'a Pool,
    /// Of every node.
    pub nodes: Vec<IpAddr>,
    /// What the pool consists of, in the order in which it is given.
    networks: Vec<IpNet>,
}

impl Pool {
    pub(super) fn on(&self, nodes: &[&Node]) -> Addresses<'_> {
        let nodes: Vec<(Vec<IpAddr>, bool)> = nodes.iter().map(|node| addresses_of(node)).collect();
        let networks = if self.networks.is_empty() {
            let usable = nodes.iter().filter(|(_, is_excluded)| !is_excluded);
            usable
                .flat_map(|(addresses, _)| addresses.iter().copied().map(IpNet::from))
                .collect()
        } else {
            self.networks.clone()
        };
        Addresses {
            pool: self,
            nodes: nodes.into_iter().flat_map(|(addresses, _)| addresses).collect(),
            networks,
        }
    }
}

impl Addresses<'_> {
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// Every address of a family, in order.
    pub fn of_family(&self, ipv6: bool) -> impl Iterator<Item = IpAddr> {
        let networks = self.networks.iter();
        networks
            .filter(move |network| network.addr().is_ipv6() == ipv6)
            .flat_map(|network| {
                // Of an IPv6 range the first address stands for any router of it.
                let any_router = network.addr().is_ipv6() && network.prefix_len() < 127;
                network.hosts().skip(usize::from(any_router))
            })
    }
}

/// What of a node matters: its internal addresses, and whether load balancers keep away from it.
pub(super) fn addresses_of(node: &Node) -> (Vec<IpAddr>, bool) {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_ref());
    let internal = addresses
        .into_iter()
        .flatten()
        .filter(|address| address.type_ == "InternalIP");
    let labels = node.metadata.labels.as_ref();
    (
        internal
            .filter_map(|address| address.address.parse().ok())
            .collect(),
        labels.is_some_and(|labels| labels.contains_key(EXCLUDED)),
    )
}
