//! What a node has to be told. Upstream: `KubeletConfiguration` and the kubelet's flags.

use crate::data_plane::DataPlane;
use crate::pod_network::PodNetwork;
use crate::service_tracer::ServiceTracer;
use coracle_client::Client;
use coracle_oci::{ImageStore, PullConfig, Runtime};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Settings of a node.
#[derive(Clone)]
pub struct NodeConfig {
    /// Name of the Node object.
    pub name: String,
    /// Addresses of the node, the primary first. Not empty.
    pub addresses: Vec<IpAddr>,
    /// The pod ranges to put into the Node object when it is created, one a family, the primary one first. Empty: the
    /// cluster gives them.
    pub pod_cidrs: Vec<IpNet>,
    /// Labels to add to the Node object.
    pub labels: BTreeMap<String, String>,
    /// Addresses of the cluster DNS.
    pub cluster_dns: Vec<IpAddr>,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// The node's own resolv.conf.
    pub resolv_conf: PathBuf,
    /// Directory of the pods' volumes (`pods`) and logs (`logs`). Made when absent.
    pub data_dir: PathBuf,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// For how long SIGTERM is held at most until the data plane has taken a deleted pod out.
    pub drain: Duration,
    /// How registries are reached.
    pub pull: PullConfig,
    /// TLS of the node's API: its certificate, and the demand for a client certificate of the cluster's authority.
    pub tls: Arc<rustls::ServerConfig>,
}

/// What a node works with.
pub struct Parts {
    /// Speaks to the API server as `system:node:NAME`.
    pub client: Client,
    /// Runs containers.
    pub runtime: Runtime,
    /// Holds images.
    pub images: ImageStore,
    /// Attaches pods.
    pub network: Arc<PodNetwork>,
    /// Tells when nothing is sent to a pod any more.
    pub data_plane: Arc<dyn DataPlane>,
    /// Tells what happened to a Service.
    pub service_tracer: Arc<dyn ServiceTracer>,
    /// Where the node's API is served; its port is reported in the Node object.
    pub listener: TcpListener,
}

/// A node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A directory of the node cannot be made.
    #[error("create the directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The address that the API listens on.
    #[error("read the address of the node's API")]
    Listener(#[source] std::io::Error),
    /// The kernel gives no inotify instance.
    #[error("open an inotify instance")]
    Inotify(#[source] std::io::Error),
}
