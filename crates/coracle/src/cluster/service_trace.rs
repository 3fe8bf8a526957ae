//! Tells `coracle trace` what this process remembers of a Service: the store's last changes, what the node's proxy and
//! the cluster DNS did, and the connections that the kernel tracks.

use crate::commands::trace::{Change, Memory, Part, Step, Trace, tell};
use coracle_dataplane::{Protocol, ServiceKey};
use coracle_kernel::net::conntrack::{Conntrack, Flow};
use coracle_kernel::net::rtnetlink::Rtnetlink;
use coracle_meta::well_known_labels::SERVICE_NAME;
use coracle_node::service_proxy::ServiceProxy;
use coracle_node::{ServiceTracer, cluster_dns};
use coracle_reconcile::Key;
use coracle_store::{Object, Store};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The kernel forgets a connection that was reset after this; others live longer.
const SURELY_TRACKED_SECONDS: i64 = 10;

/// What tells the story.
pub struct Tracer {
    /// Name of the node.
    pub node: String,
    /// The objects and their last changes.
    pub store: Store,
    /// The packet rules.
    pub proxy: Arc<ServiceProxy>,
    /// The names.
    pub names: Arc<cluster_dns::Timeline>,
}

impl ServiceTracer for Tracer {
    fn trace(&self, namespace: &str, name: &str) -> Option<Value> {
        let object = self.store.get("/services", namespace, name)?;
        let service: Value = serde_json::from_slice(object.bytes()).ok()?;
        let timeline = self.proxy.timeline().of(&ServiceKey::new(namespace, name));
        let memory = Memory {
            service: &service,
            node: &self.node,
            services: &self.changes("/services", namespace),
            slices: &self.changes("discovery.k8s.io/endpointslices", namespace),
            pods: &self.changes("/pods", namespace),
            proxy: timeline.and_then(|timeline| timeline.last),
            names: self.names.names(&Key::new(namespace, name)),
        };
        let mut steps = tell(&memory);
        steps.extend(self.first_packet(namespace, name, &object, &steps));
        serde_json::to_value(Trace { steps }).ok()
    }
}

impl Tracer {
    /// The writes of a resource in this namespace that the store remembers.
    fn changes(&self, resource: &str, namespace: &str) -> Vec<Change> {
        let events = self.store.history(resource);
        let own = events
            .iter()
            .filter(|event| event.subject().namespace() == namespace);
        own.map(|event| Change {
            revision: event.revision,
            at: event.committed,
            before: event.previous.as_deref().and_then(decode),
            after: event.object.as_deref().and_then(decode),
        })
        .collect()
    }

    /// The first connection since the kernel had the rules, or since the change where there are none.
    fn first_packet(&self, namespace: &str, name: &str, service: &Object, steps: &[Step]) -> Option<Step> {
        let of = |part: Part| steps.iter().find(|step| step.part == part);
        let since = of(Part::Kernel).or_else(|| steps.iter().min())?.at;
        let service: Service = decode(service)?;
        let destinations = self.destinations(namespace, name, &service);
        let (at, flow) = flows()
            .into_iter()
            .filter(|flow| destinations.contains(flow))
            .filter_map(|flow| Some((Timestamp::from_nanosecond(flow.started?.into()).ok()?, flow)))
            .filter(|(at, _)| *at >= since)
            .min_by_key(|(at, _)| *at)?;
        let (client, to) = (
            SocketAddr::from(flow.original.source),
            SocketAddr::from(flow.original.destination),
        );
        let mut text = format!("{client} to {to}");
        if flow.destination_rewritten {
            text.push_str(&format!(", sent to {}", SocketAddr::from(flow.reply.source)));
        }
        if Timestamp::now().duration_since(since).as_secs() > SURELY_TRACKED_SECONDS {
            text.push_str("; the first that is still tracked");
        }
        Some(Step {
            at,
            part: Part::FirstPacket,
            node: Some(self.node.clone()),
            text,
            revision: None,
        })
    }

    fn destinations(&self, namespace: &str, name: &str, service: &Service) -> Destinations {
        let mut destinations = Destinations::default();
        let Some(spec) = &service.spec else {
            return destinations;
        };
        let status = service.status.as_ref();
        let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        let ips: Vec<IpAddr> = spec
            .cluster_ips
            .iter()
            .flatten()
            .chain(spec.external_ips.iter().flatten())
            .chain(
                ingress
                    .into_iter()
                    .flatten()
                    .filter_map(|ingress| ingress.ip.as_ref()),
            )
            .filter_map(|ip| ip.parse().ok())
            .collect();
        for port in spec.ports.iter().flatten() {
            let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else {
                continue;
            };
            let number = |port: i32| u16::try_from(port).unwrap_or_default();
            destinations
                .addresses
                .extend(ips.iter().map(|ip| (protocol, *ip, number(port.port))));
            destinations
                .node_ports
                .extend(port.node_port.map(|port| (protocol, number(port))));
        }
        if spec.cluster_ip.as_deref() == Some("None") {
            destinations.endpoints.extend(self.endpoints(namespace, name));
            destinations.node = node_addresses();
        }
        destinations
    }

    /// Where clients of a headless Service connect to.
    fn endpoints(&self, namespace: &str, name: &str) -> Vec<(Protocol, IpAddr, u16)> {
        let listed = self
            .store
            .list("discovery.k8s.io/endpointslices", Some(namespace), None, None);
        let objects = listed.map(|listing| listing.objects).unwrap_or_default();
        let slices = objects
            .iter()
            .filter_map(|object| decode::<EndpointSlice>(object));
        let own = slices.filter(|slice| {
            let labels = slice.metadata.labels.as_ref();
            labels
                .and_then(|labels| labels.get(SERVICE_NAME))
                .is_some_and(|service| service == name)
        });
        let mut endpoints = Vec::new();
        for slice in own {
            for port in slice.ports.iter().flatten() {
                let number = port.port.and_then(|port| u16::try_from(port).ok());
                let (Some(number), Some(protocol)) = (number, Protocol::parse(port.protocol.as_deref()))
                else {
                    continue;
                };
                let addresses = slice
                    .endpoints
                    .iter()
                    .flatten()
                    .filter_map(|e| e.addresses.first()?.parse().ok());
                endpoints.extend(addresses.map(|ip| (protocol, ip, number)));
            }
        }
        endpoints
    }
}

/// What a Service's clients connect to.
#[derive(Debug, Default)]
struct Destinations {
    addresses: BTreeSet<(Protocol, IpAddr, u16)>,
    /// On every address of the node, which only packets that were turned to an endpoint show.
    node_ports: BTreeSet<(Protocol, u16)>,
    /// Endpoints that clients connect to themselves. So does the node, whose probes are no clients.
    endpoints: BTreeSet<(Protocol, IpAddr, u16)>,
    node: BTreeSet<IpAddr>,
}

impl Destinations {
    fn contains(&self, flow: &Flow) -> bool {
        let Some(protocol) = Protocol::from_number(flow.original.protocol) else {
            return false;
        };
        let (ip, port) = flow.original.destination;
        let is_probe = self.node.contains(&flow.original.source.0);
        self.addresses.contains(&(protocol, ip, port))
            || (!is_probe && self.endpoints.contains(&(protocol, ip, port)))
            || (flow.destination_rewritten && self.node_ports.contains(&(protocol, port)))
    }
}

fn node_addresses() -> BTreeSet<IpAddr> {
    let addresses = Rtnetlink::open().and_then(|mut netlink| netlink.addresses());
    addresses
        .unwrap_or_default()
        .into_iter()
        .map(|address| address.ip)
        .collect()
}

fn flows() -> Vec<Flow> {
    let Ok(mut conntrack) = Conntrack::open() else {
        return Vec::new();
    };
    let mut flows = Vec::new();
    for ipv6 in [false, true] {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            flows.extend(conntrack.flows(ipv6, protocol.number()).unwrap_or_default());
        }
    }
    flows
}

fn decode<T: DeserializeOwned>(object: &Object) -> Option<T> {
    serde_json::from_slice(object.bytes()).ok()
}
