//! What a Service asks of the kernel: its frontends and the endpoints behind each.

use crate::class::{Class, Pick, Source};
use crate::endpoint_slice::{Endpoint, EndpointsByPort};
use crate::frontend::{Frontend, Key, LOCAL_SLOTS, Protocol, Target};
use crate::service_port::ServicePort;
use crate::tables::Config;
use crate::topology;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a frontend shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub class: Class,
    pub inside: Option<Class>,
    pub cluster: Vec<Target>,
    pub local: Vec<Target>,
    /// Endpoints that existing UDP flows may stay with, whatever the traffic policy.
    pub serving: BTreeSet<Target>,
}

/// What one Service needs: its frontends, and the addresses in sets that several Services may share.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub frontends: BTreeMap<Frontend, Wanted>,
    pub addresses: BTreeSet<Key>,
    /// Addresses of endpoints in use that are not ending.
    pub staying: BTreeSet<IpAddr>,
}

impl Needs {
    /// The elements by which others may need the same.
    pub fn roots(&self) -> impl Iterator<Item = Key> {
        let frontends = self.frontends.keys().map(|frontend| Key::Service(*frontend));
        frontends.chain(self.addresses.iter().copied())
    }

    /// Adds what one port needs.
    pub fn add_port(&mut self, config: &Config, port: &ServicePort, endpoints: &EndpointsByPort) {
        let endpoints = endpoints
            .get(&(port.name.clone(), port.protocol))
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
        let frontend = |address, number| Frontend {
            address,
            protocol: port.protocol,
            port: number,
        };
        let pick = |node_port, source, list: &[Target]| {
            Class::Pick(Pick {
                node_port,
                source,
                count: u16::try_from(list.len()).expect("lists are cut to the number of slots"),
                sticky: port.sticky,
            })
        };

        if !config.local_addresses.contains(&port.cluster_ip) {
            self.addresses.insert(Key::ClusterIp(port.cluster_ip));
            let list = if port.internal_policy_local {
                &local
            } else {
                &cluster
            };
            let class = match (usable.any, list.is_empty()) {
                (false, _) => Class::Reject,
                (true, true) => Class::Drop,
                (true, false) => pick(false, Source::RewriteOutside, list),
            };
            let wanted = Wanted {
                class,
                inside: None,
                cluster: list.clone(),
                local: Vec::new(),
                serving: serving.clone(),
            };
            self.frontends
                .insert(frontend(port.cluster_ip, port.port), wanted);
        }

        let external = |node_port| {
            let keep = usable.any && port.external_policy_local;
            let class = match (usable.any, keep) {
                (false, _) => Class::Reject,
                (true, true) => pick(node_port, Source::Keep, &local),
                (true, false) => pick(node_port, Source::Rewrite, &cluster),
            };
            Wanted {
                class,
                inside: keep.then(|| pick(node_port, Source::RewriteOutside, &cluster)),
                cluster: cluster.clone(),
                local: if keep { local.clone() } else { Vec::new() },
                serving: serving.clone(),
            }
        };
        for &address in &port.external_ips {
            if !config.local_addresses.contains(&address) {
                self.frontends
                    .insert(frontend(address, port.port), external(false));
            }
        }
        if let Some(node_port) = port.node_port {
            let frontend = Frontend::node_port(port.cluster_ip.is_ipv6(), port.protocol, node_port);
            self.frontends.insert(frontend, external(true));
        }
    }
}

/// Addresses in order, at most as many as there are slots.
fn targets(endpoints: &[&Endpoint]) -> Vec<Target> {
    let targets = endpoints.iter().map(|endpoint| endpoint.target);
    targets.take(usize::from(LOCAL_SLOTS) - 1).collect()
}
