//! The node: runs the pods that are bound to it, gives them addresses and volumes, keeps the Node object and its
//! Lease true, serves logs, exec and port-forward, turns Services into packet rules and names into addresses.
//! Upstream: `pkg/kubelet`, `pkg/proxy`, CoreDNS' cluster plugin.
//!
//! The decisions are in `coracle-pods` and `coracle-dataplane`; here they meet the machine.

pub mod cluster_dns;
mod config;
mod container_config;
mod data_plane;
mod image_manager;
mod kubelet;
mod lifecycle;
mod log_watch;
mod logs;
mod node_status;
mod object_cache;
mod pages;
mod pod_actions;
pub mod pod_network;
mod pod_view;
mod pod_worker;
mod pod_workers;
mod probe;
mod sandbox;
mod security_context;
mod server;
mod service_lister;
pub mod service_proxy;
mod service_tracer;
mod status_writer;
mod volumes;

pub use config::{NodeConfig, NodeError, Parts};
pub use data_plane::{DataPlane, DataPlaneError, Ways};
pub use node_status::pod_cidrs;
pub use pages::serve_texts;
pub use service_tracer::ServiceTracer;

use kubelet::Kubelet;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

/// Runs the node until dropped; the containers run on. `ready` is called when the Node object is Ready and the pods
/// of the node are known.
pub async fn run(config: NodeConfig, parts: Parts, ready: impl FnOnce() + Send) -> Result<(), NodeError> {
    for name in ["pods", "logs"] {
        let path = config.data_dir.join(name);
        std::fs::create_dir_all(&path).map_err(|source| NodeError::Directory { path, source })?;
    }
    let port = parts.listener.local_addr().map_err(NodeError::Listener)?.port();
    let (recorder, write_events) = coracle_client::events::recorder(parts.client.clone());
    let (changed_sender, changed) = mpsc::unbounded_channel();
    let settings = coracle_pods::Settings {
        host_ips: config.addresses.clone(),
        drain: jiff::SignedDuration::try_from(config.drain).unwrap_or(jiff::SignedDuration::MAX),
    };
    let kubelet = Arc::new(Kubelet {
        recorder: recorder.of("kubelet", &config.name),
        config_maps: object_cache::ObjectCache::new(parts.client.clone(), changed_sender.clone()),
        secrets: object_cache::ObjectCache::new(parts.client.clone(), changed_sender),
        services: service_lister::ServiceLister::new(),
        views: pod_view::PodViews::default(),
        log_watch: log_watch::LogWatch::new().map_err(NodeError::Inotify)?,
        resources: node_status::Resources::measure(&config.data_dir, config.max_pods),
        settings: Arc::new(settings),
        report_wanted: Notify::new(),
        used_images: parking_lot::Mutex::default(),
        client: parts.client,
        runtime: parts.runtime,
        images: parts.images,
        network: parts.network,
        data_plane: parts.data_plane,
        service_tracer: parts.service_tracer,
        config,
    });
    drop(recorder);
    let registered = async {
        let node = node_status::register(&kubelet, port).await;
        tracing::info!(node = kubelet.config.name, "node registered");
        let (uid_sender, uid) = watch::channel(node.metadata.uid.clone().unwrap_or_default());
        let (client, name, told) = (
            kubelet.client.clone(),
            kubelet.config.name.clone(),
            kubelet.clone(),
        );
        let lease = node_status::run_lease(client, name, uid, move || told.report_wanted.notify_one());
        let status = node_status::run(kubelet.clone(), port, node, uid_sender);
        let pods = pod_workers::run(kubelet.clone(), changed, ready);
        // A task of its own, ended with the rest.
        let mut heartbeat = JoinSet::new();
        heartbeat.spawn(lease);
        tokio::join!(heartbeat.join_next(), status, pods);
    };
    // Each runs until the whole is dropped.
    tokio::join!(
        registered,
        write_events,
        kubelet.services.run(kubelet.client.clone()),
        kubelet.log_watch.run(),
        logs::rotation::run(kubelet.clone()),
        server::run(kubelet.clone(), parts.listener),
    );
    Ok(())
}
