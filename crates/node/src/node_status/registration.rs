//! Creates or corrects the Node object and reports its status: at once when it changes, else every 5 minutes.

use super::machine;
use crate::config::NodeConfig;
use crate::kubelet::Kubelet;
use coracle_client::{Client, ClientError};
use coracle_meta::GroupVersionResource;
use coracle_reconcile::{EventType, Key, PatchType};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeAddress};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const REPORT: Duration = Duration::from_secs(300);
/// How many images the status names, as upstream.
const MAX_IMAGES: usize = 50;

fn nodes() -> GroupVersionResource {
    GroupVersionResource::new("", "v1", "nodes")
}

/// Makes the Node object exist with its labels, addresses and resources, Ready from the first moment. Returns it as
/// it is afterwards; tries until the API server accepts it.
pub async fn register(kubelet: &Kubelet, port: u16) -> Node {
    let mut wait = Duration::from_millis(20);
    loop {
        match try_register(kubelet, port).await {
            Ok(node) => return node,
            Err(error) => {
                let error = error.describe();
                tracing::debug!(error, "node not registered yet");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
        }
    }
}

async fn try_register(kubelet: &Kubelet, port: u16) -> Result<Node, ClientError> {
    let config = &kubelet.config;
    let status = status(kubelet, port, None).await;
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": config.name,
            "labels": labels(config),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": {},
        "status": status,
    });
    if let Some(primary) = config.pod_cidrs.first() {
        object["spec"] = json!({"podCIDR": primary, "podCIDRs": config.pod_cidrs});
    }
    match kubelet.client.create(&nodes(), "", &object).await {
        Ok(created) => decode(created),
        Err(error) if error.is_already_exists() => {
            let key = Key::new("", config.name.clone());
            let labels = json!({"metadata": {"labels": labels(config)}});
            let node = kubelet
                .client
                .patch(&nodes(), &key, "", PatchType::Strategic, &labels)
                .await?;
            let node = decode(node)?;
            report(kubelet, port, Some(&node)).await
        }
        Err(error) => Err(error),
    }
}

fn decode(node: Value) -> Result<Node, ClientError> {
    serde_json::from_value(node).map_err(|source| ClientError::Decode {
        request: "a node".to_owned(),
        source,
    })
}

/// Reports until dropped; registers again if the Node object was deleted. `uid` is told whose the Lease is.
pub async fn run(kubelet: Arc<Kubelet>, port: u16, mut node: Node, uid: watch::Sender<String>) {
    let regarding = regarding(&node);
    let event = |reason: &str, message: &str| {
        kubelet
            .recorder
            .event(regarding.clone(), EventType::Normal, reason, message);
    };
    event("Starting", "Starting kubelet.");
    event(
        "NodeReady",
        &format!("Node {} status is now: NodeReady", kubelet.config.name),
    );
    loop {
        // Cancel-safe: a notification that is not waited for is kept.
        tokio::select! {
            () = tokio::time::sleep(REPORT) => {}
            () = kubelet.report_wanted.notified() => {}
        }
        match report(&kubelet, port, Some(&node)).await {
            Ok(reported) => node = reported,
            Err(error) if error.is_not_found() => {
                node = register(&kubelet, port).await;
                uid.send_replace(node.metadata.uid.clone().unwrap_or_default());
            }
            Err(error) => {
                let error = error.describe();
                tracing::warn!(error, "node status not reported");
                tokio::time::sleep(Duration::from_secs(1)).await;
                kubelet.report_wanted.notify_one();
            }
        }
    }
}

async fn report(kubelet: &Kubelet, port: u16, old: Option<&Node>) -> Result<Node, ClientError> {
    let patch = json!({ "status": status(kubelet, port, old).await });
    let key = Key::new("", kubelet.config.name.clone());
    let answer = kubelet
        .client
        .patch(&nodes(), &key, "status", PatchType::Strategic, &patch)
        .await?;
    decode(answer)
}

async fn status(kubelet: &Kubelet, port: u16, old: Option<&Node>) -> Value {
    let resources = &kubelet.resources;
    let mut status = json!({
        "addresses": addresses(&kubelet.config),
        "capacity": resources.capacity(),
        "allocatable": resources.allocatable(),
        "conditions": conditions(old, Timestamp::now()),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": machine::system_info(),
        "runtimeHandlers": [{"name": "", "features": {"recursiveReadOnlyMounts": false, "userNamespaces": false}}],
        "features": {"supplementalGroupsPolicy": true},
    });
    let store = kubelet.images.clone();
    let images = tokio::task::spawn_blocking(move || store.list()).await;
    if let Ok(Ok(images)) = images {
        let mut images: Vec<ContainerImage> = images
            .into_iter()
            .map(|image| ContainerImage {
                names: Some([image.digests, image.references].concat()),
                size_bytes: i64::try_from(image.size).ok(),
            })
            .collect();
        images.sort_by(|a, b| {
            b.size_bytes
                .cmp(&a.size_bytes)
                .then_with(|| a.names.cmp(&b.names))
        });
        images.truncate(MAX_IMAGES);
        status["images"] = json!(images);
    }
    status
}

fn labels(config: &NodeConfig) -> Value {
    let arch = machine::architecture();
    let mut labels = json!({
        "kubernetes.io/hostname": config.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": arch,
    });
    for (name, value) in &config.labels {
        labels[name] = json!(value);
    }
    labels
}

fn addresses(config: &NodeConfig) -> Vec<NodeAddress> {
    let address = |kind: &str, address: String| NodeAddress {
        type_: kind.to_owned(),
        address,
    };
    let ips = config
        .addresses
        .iter()
        .map(|ip| address("InternalIP", ip.to_string()));
    ips.chain([address("Hostname", config.name.clone())]).collect()
}

/// All is well: what would press on memory, disk or process ids is not watched.
fn conditions(old: Option<&Node>, now: Timestamp) -> Value {
    let facts = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let known = old
        .and_then(|n| n.status.as_ref())
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    let conditions = facts.map(|(kind, status, reason, message)| {
        let since = known
            .iter()
            .find(|c| c.type_ == kind && c.status == status)
            .and_then(|c| c.last_transition_time.as_ref())
            .map_or(now, |t| t.0);
        let time = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({"type": kind, "status": status, "reason": reason, "message": message,
               "lastHeartbeatTime": time(now), "lastTransitionTime": time(since)})
    });
    json!(conditions)
}

fn regarding(node: &Node) -> Value {
    // Upstream puts the name where the uid belongs; kubectl describe finds both.
    let name = node.metadata.name.clone();
    json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": name, "namespace": ""})
}

/// The pod ranges that the cluster gave to the node, as soon as it has any; empty if it has none in time.
pub async fn pod_cidrs(client: &Client, name: &str, within: Duration) -> Vec<ipnet::IpNet> {
    use coracle_client::{Event, informer};
    let (sender, mut events) = tokio::sync::mpsc::channel(16);
    let options = informer::Options {
        field_selector: format!("metadata.name={name}"),
        ..informer::Options::default()
    };
    let informer = informer::run(client.clone(), nodes(), options, sender);
    let look = async {
        while let Some(event) = events.recv().await {
            let Event::Applied { object, .. } = event else {
                continue;
            };
            let node: Option<Node> = serde_json::from_slice(&object).ok();
            let ranges = node.and_then(|n| n.spec?.pod_cidrs).unwrap_or_default();
            let ranges: Vec<ipnet::IpNet> = ranges.iter().filter_map(|range| range.parse().ok()).collect();
            if !ranges.is_empty() {
                return ranges;
            }
        }
        Vec::new()
    };
    // Cancel-safe: whatever ends first ends all.
    tokio::select! {
        ranges = look => ranges,
        () = informer => Vec::new(),
        () = tokio::time::sleep(within) => Vec::new(),
    }
}
