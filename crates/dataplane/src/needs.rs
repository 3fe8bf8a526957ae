//! What a Service asks of the kernel: its frontends and the endpoints behind each.

use crate::class::{Balancing, Class, Pick, Source};
use crate::endpoint_slice::{Endpoint, EndpointsByPort};
use crate::frontend::{Frontend, Key, LOCAL_SLOTS, Protocol, Target};
use crate::load::ByLoad;
use crate::service_port::ServicePort;
use crate::sorted::{SortedMap, SortedSet};
use crate::tables::Config;
use crate::topology;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What a frontend shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub class: Class,
    pub inside: Option<Class>,
    pub cluster: Vec<Target>,
    pub local: Vec<Target>,
    /// Clients that are let through, if not all are.
    pub sources: Vec<IpNet>,
    /// How the slots are filled, if not with all endpoints.
    pub by_load: Option<ByLoad>,
    /// Endpoints that existing UDP flows may stay with, whatever the traffic policy.
    pub serving: BTreeSet<Target>,
}

/// What one Service needs: its frontends, and the addresses in sets that several Services may share.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub frontends: SortedMap<Frontend, Wanted>,
    pub addresses: SortedSet<Key>,
    /// Addresses of endpoints in use that are not ending.
    pub staying: SortedSet<IpAddr>,
    /// The port for health checkers of load balancers, and the ready endpoints on this node.
    pub health_check: Option<(u16, BTreeSet<IpAddr>)>,
}

impl Needs {
    /// The elements by which others may need the same.
    pub fn roots(&self) -> impl Iterator<Item = Key> {
        let frontends = self.frontends.keys().map(|frontend| Key::Service(*frontend));
        frontends.chain(self.addresses.iter().copied())
    }

    /// Adds what one port needs.
    pub fn add_port(&mut self, config: &Config, port: &ServicePort, endpoints: &EndpointsByPort<'_>) {
        let endpoints = endpoints
            .get(&(port.name.as_str(), port.protocol))
            .map_or(&[][..], Vec::as_slice);
        let usable = topology::categorize(endpoints, port, &config.node_name, config.zone.as_deref());
        let cluster = targets(&usable.cluster);
        let local = targets(&usable.local);
        let used = || usable.cluster.iter().chain(&usable.local);
        self.addresses.extend(
            used()
                .filter(|endpoint| endpoint.local)
                .map(|endpoint| Key::Hairpin(endpoint.target.ip())),
        );
        let staying = used().filter(|endpoint| !endpoint.terminating);
        self.staying.extend(staying.map(|endpoint| endpoint.target.ip()));
        let serving: BTreeSet<Target> = match port.protocol {
            Protocol::Udp => {
                let serving = endpoints
                    .iter()
                    .filter(|endpoint| endpoint.serving || endpoint.ready);
                serving.map(|endpoint| endpoint.target).collect()
            }
            _ => BTreeSet::new(),
        };
        let by_load = match port.balancing {
            Balancing::ByLoad(load, _) => {
                let weights = used().filter(|endpoint| endpoint.weight != 1);
                let weights = weights
                    .map(|endpoint| (endpoint.target, endpoint.weight))
                    .collect();
                Some(ByLoad { load, weights })
            }
            _ => None,
        };
        let frontend = |address, number| Frontend {
            address,
            protocol: port.protocol,
            port: number,
        };
        if let Some(number) = port.health_check_node_port {
            let (_, here) = self.health_check.get_or_insert_with(|| (number, BTreeSet::new()));
            let ready = endpoints
                .iter()
                .filter(|endpoint| endpoint.local && endpoint.ready);
            here.extend(ready.map(|endpoint| endpoint.target.ip()));
        }
        let pick = |to: Frontend, source, list: &[Target], restricted| {
            Class::Pick(Pick {
                node_port: to.is_node_port(),
                source,
                count: u16::try_from(list.len()).expect("lists are cut to the number of slots"),
                sticky: port.sticky,
                balancing: port.balancing.with_turn(to.turn()),
                restricted,
            })
        };

        if !config.local_addresses.contains(&port.cluster_ip) {
            self.addresses.insert(Key::ClusterIp(port.cluster_ip));
            let list = if port.internal_policy_local {
                &local
            } else {
                &cluster
            };
            let to = frontend(port.cluster_ip, port.port);
            let class = match (usable.any, list.is_empty()) {
                (false, _) => Class::Reject,
                (true, true) => Class::Drop,
                (true, false) => pick(to, Source::RewriteOutside, list, false),
            };
            let wanted = Wanted {
                class,
                inside: None,
                cluster: list.clone(),
                local: Vec::new(),
                sources: Vec::new(),
                by_load: by_load.clone(),
                serving: serving.clone(),
            };
            self.frontends.insert(to, wanted);
        }

        let external = |to: Frontend, sources: &[IpNet]| {
            let keep = usable.any && port.external_policy_local;
            let restricted = !sources.is_empty();
            let class = match (usable.any, keep) {
                (false, _) if restricted => Class::RejectRestricted,
                (false, _) => Class::Reject,
                (true, true) => pick(to, Source::Keep, &local, restricted),
                (true, false) => pick(to, Source::Rewrite, &cluster, restricted),
            };
            Wanted {
                class,
                // Whoever gets there has been let through.
                inside: keep.then(|| pick(to, Source::RewriteOutside, &cluster, false)),
                cluster: cluster.clone(),
                local: if keep { local.clone() } else { Vec::new() },
                sources: sources.to_vec(),
                by_load: by_load.clone(),
                serving: serving.clone(),
            }
        };
        // Nothing else is behind such an address: what no Service serves there is refused.
        let announced = port
            .load_balancer_ips
            .iter()
            .copied()
            .filter(|ip| config.is_announced(*ip));
        self.addresses.extend(announced.map(Key::ClusterIp));
        let unrestricted: &[IpNet] = &[];
        let external_ips = port.external_ips.iter().map(|ip| (*ip, unrestricted));
        let load_balancer_ips = port.load_balancer_ips.iter();
        for (address, sources) in
            external_ips.chain(load_balancer_ips.map(|ip| (*ip, port.source_ranges.as_slice())))
        {
            if !config.local_addresses.contains(&address) {
                let to = frontend(address, port.port);
                self.frontends.insert(to, external(to, sources));
            }
        }
        if let Some(node_port) = port.node_port {
            let frontend = Frontend::node_port(port.cluster_ip.is_ipv6(), port.protocol, node_port);
            self.frontends.insert(frontend, external(frontend, unrestricted));
        }
    }
}

/// Addresses in order, at most as many as there are slots.
fn targets(endpoints: &[&Endpoint]) -> Vec<Target> {
    let targets = endpoints.iter().map(|endpoint| endpoint.target);
    targets.take(usize::from(LOCAL_SLOTS) - 1).collect()
}
