//! What all parts of a node share. Upstream: `pkg/kubelet/kubelet.go`.

use crate::config::NodeConfig;
use crate::data_plane::DataPlane;
use crate::log_watch::LogWatch;
use crate::node_status::Resources;
use crate::object_cache::ObjectCache;
use crate::pod_network::PodNetwork;
use crate::pod_view::PodViews;
use crate::service_lister::ServiceLister;
use crate::service_tracer::ServiceTracer;
use coracle_client::{Client, Recorder};
use coracle_oci::{ImageStore, Runtime};
use coracle_pods::Settings;
use coracle_pods::dns::{ClusterDns, ResolvConf};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;

/// The node's means.
pub struct Kubelet {
    /// Settings.
    pub config: NodeConfig,
    /// The API.
    pub client: Client,
    /// Containers.
    pub runtime: Runtime,
    /// Images.
    pub images: ImageStore,
    /// Pod addresses.
    pub network: Arc<PodNetwork>,
    /// Where connections go.
    pub data_plane: Arc<dyn DataPlane>,
    /// Knows what happened to Services.
    pub service_tracer: Arc<dyn ServiceTracer>,
    /// Events in the name of the kubelet.
    pub recorder: Recorder,
    /// ConfigMaps that pods refer to.
    pub config_maps: ObjectCache<ConfigMap>,
    /// Secrets that pods refer to.
    pub secrets: ObjectCache<Secret>,
    /// Services.
    pub services: ServiceLister,
    /// What pods are to the node's API.
    pub views: PodViews,
    /// Wakes those who follow logs.
    pub log_watch: LogWatch,
    /// What the machine has.
    pub resources: Resources,
    /// Constants of pod workers.
    pub settings: Arc<Settings>,
    /// Told when the status of the node should be reported anew: an image was pulled, or turns out to have been loaded
    /// by somebody else, or the Node object may be gone.
    pub report_wanted: Notify,
    /// Images that containers were started from.
    pub used_images: Mutex<HashSet<String>>,
}

impl Kubelet {
    /// Everything of a pod but its logs.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(uid)
    }

    /// The logs of a pod's containers: `CONTAINER/ATTEMPT.log`.
    pub fn log_dir(&self, pod: &Pod) -> PathBuf {
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let name = format!(
            "{}_{}_{}",
            text(&meta.namespace),
            text(&meta.name),
            text(&meta.uid)
        );
        self.config.data_dir.join("logs").join(name)
    }

    /// The resolv.conf of a pod. An unreadable one of the node counts as empty.
    pub fn resolv_conf(&self, pod: &Pod) -> ResolvConf {
        let host = std::fs::read_to_string(&self.config.resolv_conf).unwrap_or_default();
        let cluster = ClusterDns {
            servers: self.config.cluster_dns.iter().map(ToString::to_string).collect(),
            domain: self.config.cluster_domain.clone(),
        };
        ResolvConf::for_pod(pod, &ResolvConf::parse(&host), &cluster)
    }
}

/// An error and all its sources in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
