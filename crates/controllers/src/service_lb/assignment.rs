//! Which Service gets which address. Several may share one, on different ports; who has an address keeps it.

use super::pool::Addresses;
use super::{is_going, is_ours};
use coracle_reconcile::Key;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Why a Service has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    /// CamelCase.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Protocol and port.
type Port = (String, i32);

/// What has a port of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    /// A load balancer.
    Service(Key),
    /// A node port, on every address of every node.
    NodePort(Key),
    /// The node itself.
    Node(&'static str),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Service(key) => write!(f, "Service {key} has it"),
            Holder::NodePort(key) => write!(f, "it is a node port of Service {key}"),
            Holder::Node(what) => write!(f, "{what} listens there"),
        }
    }
}

/// The ports that are taken.
struct Taken<'a> {
    addresses: &'a Addresses<'a>,
    load_balancers: BTreeMap<(IpAddr, Port), Key>,
    node_ports: BTreeMap<Port, Key>,
}

/// The addresses of every Service that is ours. `services` are all there are; those that come first choose first.
pub(super) fn assign<'a>(
    services: &[&'a Arc<Service>],
    addresses: &Addresses<'_>,
) -> Vec<(&'a Service, Result<Vec<IpAddr>, Waiting>)> {
    let specs = services
        .iter()
        .filter_map(|service| Some((&***service, service.spec.as_ref()?)));
    let mut taken = Taken {
        addresses,
        load_balancers: BTreeMap::new(),
        node_ports: BTreeMap::new(),
    };
    for (service, spec) in specs.clone() {
        for port in spec.ports.iter().flatten() {
            if let Some(number) = port.node_port.filter(|number| *number != 0) {
                let node_port = (protocol(port.protocol.as_deref()), number);
                taken
                    .node_ports
                    .entry(node_port)
                    .or_insert_with(|| Key::of(service));
            }
        }
    }
    let ours: Vec<(&Service, &ServiceSpec)> = specs.filter(|(_, spec)| is_ours(spec)).collect();
    // Before anybody gets something new, all keep what they have.
    let kept: Vec<Vec<IpAddr>> = ours
        .iter()
        .map(|(service, spec)| {
            let mut kept = Vec::new();
            for ip in current(service).filter(|ip| families(spec).contains(&ip.is_ipv6())) {
                let is_first = !kept.iter().any(|other: &IpAddr| other.is_ipv6() == ip.is_ipv6());
                let is_wanted = wanted(spec, ip.is_ipv6()).is_none_or(|wanted| wanted == Ok(ip));
                let key = Key::of(*service);
                if is_first && is_wanted && addresses.contains(ip) && taken.take(ip, spec, &key).is_ok() {
                    kept.push(ip);
                }
            }
            kept
        })
        .collect();
    ours.into_iter()
        .zip(kept)
        .map(|((service, spec), kept)| (service, taken.complete(service, spec, kept)))
        .collect()
}

impl Taken<'_> {
    /// An address for each family. A Service that can do with one family has to have one.
    fn complete(
        &mut self,
        service: &Service,
        spec: &ServiceSpec,
        kept: Vec<IpAddr>,
    ) -> Result<Vec<IpAddr>, Waiting> {
        let mut all = Vec::new();
        let mut first_error = None;
        for ipv6 in families(spec) {
            let found = match kept.iter().find(|ip| ip.is_ipv6() == ipv6) {
                Some(ip) => Ok(*ip),
                None if is_going(service) => continue,
                None => self.find(spec, ipv6, &Key::of(service)),
            };
            match found {
                Ok(ip) => all.push(ip),
                Err(waiting) => {
                    first_error.get_or_insert(waiting);
                }
            }
        }
        match first_error {
            Some(waiting) if all.is_empty() => Err(waiting),
            _ => Ok(all),
        }
    }

    /// The address that the Service asks for, or the first whose ports are free.
    fn find(&mut self, spec: &ServiceSpec, ipv6: bool, key: &Key) -> Result<IpAddr, Waiting> {
        let waiting = |reason, message| Waiting { reason, message };
        match wanted(spec, ipv6) {
            Some(Ok(ip)) if self.addresses.contains(ip) => {
                return self
                    .take(ip, spec, key)
                    .map(|()| ip)
                    .map_err(|message| waiting("PortTaken", message));
            }
            Some(wanted) => {
                let text = wanted.map_or_else(|text| text.to_owned(), |ip| ip.to_string());
                let message = format!("{text} is not in the pool of load balancer addresses");
                return Err(waiting("AddressNotInPool", message));
            }
            None => (),
        }
        let mut refused = None;
        let addresses = self.addresses;
        for ip in addresses.of_family(ipv6) {
            match self.take(ip, spec, key) {
                Ok(()) => return Ok(ip),
                Err(message) => {
                    refused.get_or_insert(message);
                }
            }
        }
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        Err(match refused {
            Some(message) => waiting("PortTaken", message),
            None => waiting(
                "NoAddress",
                format!("the pool of load balancer addresses has no {family} address"),
            ),
        })
    }

    /// Takes all ports of a Service on an address, or says which one is not free.
    fn take(&mut self, ip: IpAddr, spec: &ServiceSpec, key: &Key) -> Result<(), String> {
        let ports: Vec<Port> = spec
            .ports
            .iter()
            .flatten()
            .map(|port| (protocol(port.protocol.as_deref()), port.port))
            .collect();
        for port in &ports {
            if let Some(holder) = self.holder(ip, port, key) {
                let (protocol, number) = port;
                return Err(format!("{protocol} port {number} of {ip} is not free: {holder}"));
            }
        }
        self.load_balancers
            .extend(ports.into_iter().map(|port| ((ip, port), key.clone())));
        Ok(())
    }

    fn holder(&self, ip: IpAddr, port: &Port, but: &Key) -> Option<Holder> {
        if let Some(key) = self.load_balancers.get(&(ip, port.clone())) {
            return (key != but).then(|| Holder::Service(key.clone()));
        }
        if !self.addresses.nodes.contains(&ip) {
            return None;
        }
        if let Some(key) = self.node_ports.get(port).filter(|key| *key != but) {
            return Some(Holder::NodePort(key.clone()));
        }
        let (protocol, number) = port;
        let mut node_ports = self.addresses.pool.node_ports.iter();
        node_ports
            .find(|(own, _)| protocol == "TCP" && i32::from(*own) == *number)
            .map(|(_, what)| Holder::Node(what))
    }
}

fn protocol(name: Option<&str>) -> String {
    name.unwrap_or("TCP").to_owned()
}

/// The families of a Service, false for IPv4: IPv4 if it does not say.
fn families(spec: &ServiceSpec) -> Vec<bool> {
    let named = spec.ip_families.as_deref().unwrap_or_default();
    if named.is_empty() {
        return vec![false];
    }
    named.iter().map(|family| family == "IPv6").collect()
}

/// The address that a Service asks for in a family; an error is text that is no address.
fn wanted(spec: &ServiceSpec, ipv6: bool) -> Option<Result<IpAddr, &str>> {
    let text = spec.load_balancer_ip.as_deref().filter(|text| !text.is_empty())?;
    match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_ipv6() == ipv6 => Some(Ok(ip)),
        Ok(_) => None,
        Err(_) => Some(Err(text)),
    }
}

fn current(service: &Service) -> impl Iterator<Item = IpAddr> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
}
