//! What a zone keeps of Services and EndpointSlices.

use crate::name::put_label;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names the Service that an EndpointSlice belongs to.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// A port of a Service or of its endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name, empty for an unnamed port.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Number.
    pub number: u16,
}

/// One address behind a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// The pod's hostname where it has one; else it is called by its address.
    pub hostname: Option<Box<str>>,
    /// Whether it takes connections.
    pub ready: bool,
    /// Whether its pod is being deleted.
    pub terminating: bool,
}

/// What a Service's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Stable addresses.
    Cluster {
        /// One a family.
        addresses: Vec<IpAddr>,
        /// The Service's ports.
        ports: Vec<Port>,
        /// Endpoints that are not ready have names too.
        publish_not_ready: bool,
    },
    /// The endpoints themselves.
    Headless {
        /// Those that are not ready too.
        publish_not_ready: bool,
    },
    /// Another name.
    External(String),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub namespace: String,
    pub service: String,
    pub ports: Vec<Port>,
    pub endpoints: Vec<Endpoint>,
}

impl Target {
    pub(super) fn of(service: &Service) -> Self {
        let Some(spec) = &service.spec else {
            return Self::Headless {
                publish_not_ready: false,
            };
        };
        if spec.type_.as_deref() == Some("ExternalName") {
            return Self::External(spec.external_name.clone().unwrap_or_default());
        }
        let publish_not_ready = spec.publish_not_ready_addresses.unwrap_or(false);
        if spec.cluster_ip.as_deref() == Some("None") {
            return Self::Headless { publish_not_ready };
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip) {
            if let Ok(address) = address.parse()
                && !addresses.contains(&address)
            {
                addresses.push(address);
            }
        }
        let ports = spec.ports.iter().flatten();
        let ports = ports
            .filter_map(|port| Port::of(&port.name, &port.protocol, port.port))
            .collect();
        Self::Cluster {
            addresses,
            ports,
            publish_not_ready,
        }
    }

    /// Whether an endpoint of this Service has a name.
    pub(crate) fn publishes(&self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Cluster {
                publish_not_ready, ..
            }
            | Self::Headless { publish_not_ready } => endpoint.ready || *publish_not_ready,
            Self::External(_) => false,
        }
    }
}

impl Slice {
    /// Absent for a slice of no Service.
    pub(super) fn of(slice: &EndpointSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?.clone();
        let ports = slice.ports.iter().flatten();
        let mut endpoints = Vec::new();
        for endpoint in slice.endpoints.iter().flatten() {
            // Unknown counts as ready, as the API says.
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            let hostname = endpoint.hostname.as_deref().filter(|hostname| is_label(hostname));
            let hostname = hostname.map(|hostname| hostname.to_ascii_lowercase().into_boxed_str());
            for address in endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
                endpoints.push(Endpoint {
                    address,
                    hostname: hostname.clone(),
                    ready,
                    terminating,
                });
            }
        }
        endpoints.shrink_to_fit();
        Some(Self {
            namespace: key(&slice.metadata).0,
            service,
            ports: ports
                .filter_map(|port| Port::of(&port.name, &port.protocol, port.port?))
                .collect(),
            endpoints,
        })
    }
}

impl Port {
    fn of(name: &Option<String>, protocol: &Option<String>, number: i32) -> Option<Self> {
        Some(Self {
            name: name.clone().unwrap_or_default(),
            protocol: match protocol.as_deref() {
                None | Some("TCP") => "tcp",
                Some("UDP") => "udp",
                Some("SCTP") => "sctp",
                Some(_) => return None,
            },
            number: u16::try_from(number).ok()?,
        })
    }
}

impl Endpoint {
    /// Whether this is the endpoint's name, given in lower case and as the address that it may stand for.
    pub(crate) fn is_called(&self, label: &str, address: Option<IpAddr>) -> bool {
        match &self.hostname {
            Some(hostname) => **hostname == *label,
            None => address == Some(self.address),
        }
    }

    /// The name of the endpoint below its Service's.
    pub(crate) fn label(&self) -> Cow<'_, str> {
        match &self.hostname {
            Some(hostname) => Cow::Borrowed(hostname),
            None => Cow::Owned(dashed(self.address)),
        }
    }
}

fn is_label(text: &str) -> bool {
    put_label(&mut Vec::new(), text.as_bytes()).is_some()
}

pub(super) fn key(metadata: &ObjectMeta) -> (String, String) {
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

/// `10-244-0-7`, `fd00--7`: the name of an address.
fn dashed(address: IpAddr) -> String {
    let mut label = address.to_string().replace(['.', ':'], "-");
    // A label does not end in a dash.
    if label.ends_with('-') {
        label.push('0');
    }
    label
}

/// The address that a dashed name stands for.
pub(crate) fn undashed(label: &str) -> Option<IpAddr> {
    // The longest address has 39 characters.
    let mut text = [0; 40];
    let text = text.get_mut(..label.len())?;
    let as_address = |text: &mut [u8], separator| {
        for (to, from) in text.iter_mut().zip(label.bytes()) {
            *to = if from == b'-' { separator } else { from };
        }
    };
    as_address(text, b'.');
    if let Some(address) = parse::<Ipv4Addr>(text) {
        return Some(address.into());
    }
    as_address(text, b':');
    parse::<Ipv6Addr>(text).map(IpAddr::V6)
}

fn parse<A: std::str::FromStr>(text: &[u8]) -> Option<A> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
