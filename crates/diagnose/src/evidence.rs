//! What was seen, before anything is concluded from it. Whoever collects it may see only a part: each part that needs
//! the node says why it is missing.

use crate::denial::Denial;
use k8s_openapi::api::core::v1::{Event, Pod, PodTemplateSpec, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Something that was looked at, or why it could not be.
pub type Seen<T> = Result<T, String>;

/// Everything that is known about a Service.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Namespace that was asked for.
    pub namespace: String,
    /// Name that was asked for.
    pub name: String,
    /// The Service, if there is one.
    pub service: Option<Service>,
    /// Namespace and name of every Service.
    pub services: Vec<(String, String)>,
    /// The Pods of the namespace.
    pub pods: Vec<Arc<Pod>>,
    /// How many Pods of other namespaces the selector would find, by namespace.
    pub elsewhere: BTreeMap<String, usize>,
    /// What makes Pods in the namespace.
    pub workloads: Vec<Workload>,
    /// The EndpointSlices of the namespace.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// The Events of the namespace.
    pub events: Vec<Event>,
    /// The node that was looked at.
    pub node: Node,
    /// Sockets that listen, by name of the Pod.
    pub sockets: BTreeMap<String, Seen<Vec<Socket>>>,
    /// The packet rules of the node.
    pub rules: Seen<Vec<Rule>>,
    /// Connections that the kernel of the node tracks.
    pub flows: Seen<Vec<Flow>>,
    /// The connections to endpoints and to the cluster DNS that NetworkPolicies keep the client from.
    pub denials: Seen<Vec<Denial>>,
    /// What the cluster DNS said.
    pub dns: Seen<Lookup>,
    /// Who asked the DNS and connected.
    pub client: Client,
    /// Connections that were tried.
    pub connections: Seen<Vec<Connection>>,
}

impl Evidence {
    /// Nothing but a name: whoever knows more fills it in. What only a node shows was not looked at.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        let unseen = || "only the API's objects are looked at here".to_owned();
        Self {
            namespace: namespace.into(),
            name: name.into(),
            service: None,
            services: Vec::new(),
            pods: Vec::new(),
            elsewhere: BTreeMap::new(),
            workloads: Vec::new(),
            slices: Vec::new(),
            events: Vec::new(),
            node: Node::default(),
            sockets: BTreeMap::new(),
            rules: Err(unseen()),
            flows: Err(unseen()),
            denials: Err(unseen()),
            dns: Err(unseen()),
            client: Client::default(),
            connections: Err(unseen()),
        }
    }
}

/// Something that makes Pods, such as a Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Resource as kubectl takes it: `deployment`.
    pub resource: String,
    /// Name.
    pub name: String,
    /// How many Pods it is told to keep.
    pub replicas: i64,
    /// Labels that its Pods get.
    pub labels: BTreeMap<String, String>,
}

impl Workload {
    /// What a resource keeps; none for what belongs to something else, such as the ReplicaSets of a Deployment.
    pub fn of(
        resource: &str,
        metadata: &ObjectMeta,
        replicas: Option<i32>,
        template: Option<&PodTemplateSpec>,
    ) -> Option<Self> {
        let owners = metadata.owner_references.iter().flatten();
        if owners.into_iter().any(|owner| owner.controller == Some(true)) {
            return None;
        }
        Some(Self {
            resource: resource.to_owned(),
            name: metadata.name.clone()?,
            replicas: replicas.unwrap_or(1).into(),
            labels: template?.metadata.as_ref()?.labels.clone()?,
        })
    }
}

/// The node that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name; empty if the command did not run on a node.
    pub name: String,
    /// Its addresses, for NodePorts.
    pub addresses: Vec<IpAddr>,
}

/// Who connects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Name of the Pod in `namespace`; none for the node itself.
    pub pod: Option<String>,
    /// Namespace of the Pod.
    pub namespace: String,
    /// Whether its resolver is the node's and not the cluster DNS.
    pub resolver_of_node: bool,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// By the name that the API gives it; absent means TCP.
    pub fn parse(name: Option<&str>) -> Self {
        match name {
            Some("UDP") => Self::Udp,
            Some("SCTP") => Self::Sctp,
            _ => Self::Tcp,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A socket that takes connections or datagrams from anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// Protocol.
    pub protocol: Protocol,
    /// The address it is bound to.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

impl Socket {
    /// Whether packets to this address reach it. A socket bound to `::` takes IPv4, too.
    pub fn takes(&self, address: IpAddr) -> bool {
        let wildcard = self.address.is_unspecified() && (self.address.is_ipv6() || address.is_ipv4());
        wildcard || self.address == address
    }
}

/// An address and port that clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// The address; the unspecified one stands for every address of the node: a NodePort.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address.is_unspecified() {
            write!(f, "node port {}/{}", self.port, self.protocol)
        } else {
            let socket = SocketAddr::new(self.address, self.port);
            write!(f, "{socket}/{}", self.protocol)
        }
    }
}

/// What the kernel does with packets to a frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The frontend.
    pub frontend: Frontend,
    /// What happens to packets.
    pub action: Action,
    /// What happens to packets from Pods and the node, if that is different.
    pub inside: Option<Action>,
}

/// What happens to packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Refused at once.
    Refuse,
    /// Thrown away.
    Drop,
    /// Sent to one of these.
    Forward(Vec<SocketAddr>),
}

/// A connection that the kernel tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Protocol.
    pub protocol: Protocol,
    /// Who began it.
    pub client: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
    /// Where the packets go instead, if a rule turned them.
    pub endpoint: Option<SocketAddr>,
}

/// A question to the cluster DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The name, in full.
    pub name: String,
    /// Who was asked.
    pub server: IpAddr,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Addresses; none if the name exists without any.
    Addresses(Vec<IpAddr>),
    /// Another name, and the addresses of that one.
    Alias(String, Vec<IpAddr>),
    /// There is no such name.
    NoSuchName,
    /// The server could not answer; its response code.
    Failed(String),
    /// Nothing came back.
    None(String),
}

/// By which of the Service's addresses a connection was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// The cluster IP.
    ClusterIp,
    /// A node port.
    NodePort,
    /// An external IP or that of a load balancer.
    External,
    /// None: straight to an endpoint.
    Endpoint,
}

/// A TCP connection that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Index of the Service's port.
    pub port: usize,
    /// By which address.
    pub via: Via,
    /// The address.
    pub to: SocketAddr,
    /// What came of it.
    pub outcome: Connected,
}

/// What came of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connected {
    /// It was accepted after this time.
    Accepted(Duration),
    /// It was refused after this time.
    Refused(Duration),
    /// Nothing came back in this time.
    TimedOut(Duration),
    /// It could not be tried: no route, for example.
    Failed(String),
}

impl Connected {
    /// Whether it was accepted.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }
}

impl fmt::Display for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted(after) => write!(f, "accepted after {} µs", after.as_micros()),
            Self::Refused(after) => write!(f, "refused after {} µs", after.as_micros()),
            Self::TimedOut(after) => write!(f, "no answer within {:.1} s", after.as_secs_f64()),
            Self::Failed(why) => f.write_str(why),
        }
    }
}
