//! The records of the cluster: Services and their endpoints, kept as they change.
//!
//! A Service and its EndpointSlices arrive in any order; a slice without its Service is kept and answers nothing.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Names the Service that an EndpointSlice belongs to.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// A port that has a name: the target of `_NAME._PROTOCOL.` queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// Name, empty for an unnamed port.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Number.
    pub port: u16,
}

/// One address of a headless Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's hostname where it has one, else the address with dashes.
    pub hostname: String,
    /// Address.
    pub address: IpAddr,
    /// The slice's ports.
    pub ports: Vec<NamedPort>,
}

/// What a Service's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Stable addresses and the Service's ports.
    Cluster(Vec<IpAddr>, Vec<NamedPort>),
    /// The endpoints themselves; `true` if unready ones are published too.
    Headless(bool),
    /// Another name.
    External(String),
}

#[derive(Debug, Clone)]
struct SliceEndpoint {
    endpoint: Endpoint,
    ready: bool,
}

/// Namespace and name.
type Key = (String, String);

/// The records of one cluster domain.
#[derive(Debug, Default)]
pub struct Zone {
    domain: Vec<String>,
    services: HashMap<String, HashMap<String, Target>>,
    slices: HashMap<Key, BTreeMap<String, Vec<SliceEndpoint>>>,
    slice_service: HashMap<Key, String>,
    addresses: HashMap<IpAddr, Key>,
    serial: u32,
}

impl Zone {
    /// A zone for a domain such as `cluster.local`.
    pub fn new(domain: &str) -> Self {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        Self {
            domain: domain.split('.').map(str::to_owned).collect(),
            ..Self::default()
        }
    }

    /// The labels of the domain.
    pub fn domain(&self) -> &[String] {
        &self.domain
    }

    /// Counts changes: the SOA's serial.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Adds or replaces a Service.
    pub fn upsert_service(&mut self, service: &Service) {
        let (namespace, name) = key(&service.metadata.namespace, &service.metadata.name);
        let target = target(service);
        self.forget_addresses(&namespace, &name);
        if let Target::Cluster(addresses, _) = &target {
            for address in addresses {
                self.addresses.insert(*address, (namespace.clone(), name.clone()));
            }
        }
        self.services.entry(namespace).or_default().insert(name, target);
        self.serial = self.serial.wrapping_add(1);
    }

    /// Removes a Service.
    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        self.forget_addresses(namespace, name);
        if let Some(services) = self.services.get_mut(namespace) {
            services.remove(name);
            if services.is_empty() {
                self.services.remove(namespace);
            }
        }
        self.serial = self.serial.wrapping_add(1);
    }

    /// Adds or replaces an EndpointSlice.
    pub fn upsert_slice(&mut self, slice: &EndpointSlice) {
        let (namespace, name) = key(&slice.metadata.namespace, &slice.metadata.name);
        let service = slice
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(SERVICE_NAME_LABEL))
            .cloned();
        self.remove_slice(&namespace, &name);
        let Some(service) = service else { return };
        self.slice_service
            .insert((namespace.clone(), name.clone()), service.clone());
        self.slices
            .entry((namespace, service))
            .or_default()
            .insert(name, endpoints(slice));
    }

    /// Removes an EndpointSlice.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        let Some(service) = self
            .slice_service
            .remove(&(namespace.to_owned(), name.to_owned()))
        else {
            return;
        };
        let key = (namespace.to_owned(), service);
        if let Some(slices) = self.slices.get_mut(&key) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&key);
            }
        }
        self.serial = self.serial.wrapping_add(1);
    }

    /// Whether the namespace has any Service.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.services.contains_key(namespace)
    }

    /// What a Service's name stands for.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Target> {
        self.services.get(namespace)?.get(name)
    }

    /// The published endpoints of a headless Service.
    pub fn endpoints(&self, namespace: &str, name: &str) -> Vec<&Endpoint> {
        let Some(Target::Headless(unready_too)) = self.service(namespace, name) else {
            return Vec::new();
        };
        self.slices
            .get(&(namespace.to_owned(), name.to_owned()))
            .into_iter()
            .flat_map(BTreeMap::values)
            .flatten()
            .filter(|e| e.ready || *unready_too)
            .map(|e| &e.endpoint)
            .collect()
    }

    /// Every name that an address has: `(optional hostname, Service, namespace)`.
    pub fn names_of(&self, address: IpAddr) -> Vec<(Option<&str>, &str, &str)> {
        if let Some((namespace, name)) = self.addresses.get(&address) {
            return vec![(None, name, namespace)];
        }
        let mut names = Vec::new();
        for (key, slices) in &self.slices {
            let (namespace, service) = key;
            if !matches!(self.service(namespace, service), Some(Target::Headless(_))) {
                continue;
            }
            let found = slices.values().flatten().find(|e| e.endpoint.address == address);
            if let Some(found) = found {
                names.push((
                    Some(found.endpoint.hostname.as_str()),
                    service.as_str(),
                    namespace.as_str(),
                ));
            }
        }
        names.sort_unstable();
        names
    }

    fn forget_addresses(&mut self, namespace: &str, name: &str) {
        let Some(Target::Cluster(addresses, _)) = self.services.get(namespace).and_then(|s| s.get(name))
        else {
            return;
        };
        for address in addresses {
            // Two Services never share an address, but events of a delete and a create may cross.
            if self
                .addresses
                .get(address)
                .is_some_and(|(ns, n)| ns == namespace && n == name)
            {
                self.addresses.remove(address);
            }
        }
    }
}

fn key(namespace: &Option<String>, name: &Option<String>) -> Key {
    (
        namespace.clone().unwrap_or_default(),
        name.clone().unwrap_or_default(),
    )
}

fn target(service: &Service) -> Target {
    let Some(spec) = &service.spec else {
        return Target::Headless(false);
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Target::External(spec.external_name.clone().unwrap_or_default());
    }
    if spec.cluster_ip.as_deref() == Some("None") {
        return Target::Headless(spec.publish_not_ready_addresses.unwrap_or(false));
    }
    let mut addresses: Vec<IpAddr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(spec.cluster_ip.iter())
        .filter_map(|address| address.parse().ok())
        .collect();
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    let ports = spec
        .ports
        .iter()
        .flatten()
        .map(|port| NamedPort {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
            port: u16::try_from(port.port).unwrap_or_default(),
        })
        .collect();
    Target::Cluster(addresses, ports)
}

fn endpoints(slice: &EndpointSlice) -> Vec<SliceEndpoint> {
    let ports: Vec<NamedPort> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(NamedPort {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
                port: u16::try_from(port.port?).ok()?,
            })
        })
        .collect();
    let mut all = Vec::new();
    for endpoint in slice.endpoints.iter().flatten() {
        let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
        for address in endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
            let hostname = endpoint.hostname.clone().unwrap_or_else(|| dashed(address));
            all.push(SliceEndpoint {
                endpoint: Endpoint {
                    hostname,
                    address,
                    ports: ports.clone(),
                },
                ready,
            });
        }
    }
    all
}

/// `10-244-0-7`, `fd00--7`: the name of an address.
pub fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a dashed name stands for.
pub fn undashed(name: &str) -> Option<IpAddr> {
    match name.replace('-', ".").parse::<std::net::Ipv4Addr>() {
        Ok(address) => Some(IpAddr::V4(address)),
        Err(_) => name
            .replace('-', ":")
            .parse::<std::net::Ipv6Addr>()
            .ok()
            .map(IpAddr::V6),
    }
}
