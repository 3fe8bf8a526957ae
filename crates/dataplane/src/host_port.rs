//! Ports of containers on the addresses of their node. Upstream: the portmap plugin of CNI.
//!
//! As with external traffic policy Local, clients from outside keep their address; and as with NodePorts, the node's
//! loopback addresses do not count.

use crate::class::{Balancing, Class, Pick, Source};
use crate::frontend::{Frontend, Key, Protocol, Target};
use crate::needs::{Needs, Wanted};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// One port of a container that the node's port leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostPort {
    frontend: Frontend,
    target: Target,
}

/// The host ports of a pod; none before it has an address, when it has ended, or on the host's own network.
pub(crate) fn of(pod: &Pod) -> Vec<HostPort> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else {
        return Vec::new();
    };
    let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if has_ended || spec.host_network == Some(true) {
        return Vec::new();
    }
    let ips: Vec<IpAddr> = status
        .pod_ips
        .iter()
        .flatten()
        .filter_map(|ip| ip.ip.parse().ok())
        .collect();
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let mut all = Vec::new();
    for port in ports {
        let number = |number: i32| u16::try_from(number).ok().filter(|number| *number != 0);
        let (Some(host_port), Some(container_port), Some(protocol)) = (
            port.host_port.and_then(number),
            number(port.container_port),
            Protocol::parse(port.protocol.as_deref()),
        ) else {
            continue;
        };
        let address = port.host_ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok());
        for ip in &ips {
            let frontend = match address {
                // An address of the other family is no address of this one.
                Some(address) if address.is_ipv6() != ip.is_ipv6() => continue,
                Some(address) if !address.is_unspecified() => Frontend {
                    address,
                    protocol,
                    port: host_port,
                },
                _ => Frontend::node_port(ip.is_ipv6(), protocol, host_port),
            };
            all.push(HostPort {
                frontend,
                target: Target::new(*ip, container_port),
            });
        }
    }
    all
}

/// What these ports need.
pub(crate) fn needs(ports: &[HostPort]) -> Needs {
    let mut needs = Needs::default();
    for HostPort { frontend, target } in ports {
        let pick = |source| {
            Class::Pick(Pick {
                node_port: frontend.is_node_port(),
                source,
                count: 1,
                sticky: None,
                balancing: Balancing::Random,
                restricted: false,
            })
        };
        let wanted = Wanted {
            class: pick(Source::Keep),
            inside: Some(pick(Source::RewriteOutside)),
            cluster: vec![*target],
            local: vec![*target],
            sources: Vec::new(),
            by_load: None,
            serving: BTreeSet::from([*target]),
        };
        needs.frontends.insert(*frontend, wanted);
        needs.addresses.insert(Key::Hairpin(target.ip()));
    }
    needs
}
