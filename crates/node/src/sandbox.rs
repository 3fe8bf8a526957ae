//! The namespaces, network and shim of a pod. Upstream: `kuberuntime_sandbox.go`; no pause container is needed.

use crate::container_config;
use crate::kubelet::{Kubelet, describe};
use crate::volumes;
use coracle_oci::{Network, PodSpec, Resources};
use coracle_pods::{hostname, qos};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Makes them, and the files that all containers of the pod share. Returns the pod's addresses.
pub async fn create(kubelet: &Arc<Kubelet>, pod: &Arc<Pod>) -> Result<Vec<IpAddr>, String> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let host_network = spec.is_some_and(|s| s.host_network == Some(true));
    let (node, object) = (kubelet.clone(), pod.clone());
    let pod_uid = uid.clone();
    let prepared = tokio::task::spawn_blocking(move || {
        let (network, ips) = if host_network {
            (Network::Host, Vec::new())
        } else {
            let (path, ips) = attach(&node, &pod_uid)?;
            (Network::Namespace(path), ips)
        };
        container_config::write_pod_files(&node, &object, &ips)
            .map_err(|error| format!("write the files of the pod: {error}"))?;
        Ok::<_, String>((network, ips))
    });
    let (network, ips) = prepared.await.map_err(|error| describe(&error))??;
    if !host_network {
        let secured = kubelet.data_plane.secured(pod, &ips).await;
        secured.map_err(|error| describe(&error))?;
    }
    // What is left of a sandbox that was lost, or whose creation failed, has the same name.
    kubelet
        .runtime
        .remove_pod(&uid)
        .await
        .map_err(|error| describe(&error))?;
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let flag = |f: Option<bool>| f == Some(true);
    let request = PodSpec {
        uid,
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        hostname: hostname::hostname_and_domain(pod, &kubelet.config.cluster_domain).0,
        network,
        host_ipc: spec.is_some_and(|s| flag(s.host_ipc)),
        host_pid: spec.is_some_and(|s| flag(s.host_pid)),
        share_process_namespace: spec.is_some_and(|s| flag(s.share_process_namespace)),
        cgroup_parent: cgroup(pod),
        resources: Resources::default(),
        log_dir: kubelet.log_dir(pod),
        sysctls: sysctls(pod),
    };
    match kubelet.runtime.start_pod(request).await {
        Ok(()) => Ok(ips),
        // The network stays for the next try; tearing down removes it.
        Err(error) => Err(describe(&error)),
    }
}

/// A pod whose sandbox is made anew keeps its network and its addresses.
fn attach(kubelet: &Kubelet, uid: &str) -> Result<(PathBuf, Vec<IpAddr>), String> {
    let network = &kubelet.network;
    let attached = network.list().map_err(|error| describe(&error))?;
    if let Some(interface) = attached.into_iter().find(|i| i.pod_uid == uid) {
        return Ok((interface.netns_path, interface.ips));
    }
    let ips = network.allocate().map_err(|error| describe(&error))?;
    match network.attach(uid, &ips) {
        Ok(interface) => Ok((interface.netns_path, interface.ips)),
        Err(error) => {
            network.release(&ips);
            Err(describe(&error))
        }
    }
}

/// Removes everything of the pod but its logs. Removing what is not there succeeds.
pub async fn tear_down(kubelet: &Arc<Kubelet>, uid: &str) -> Result<(), String> {
    kubelet
        .runtime
        .remove_pod(uid)
        .await
        .map_err(|error| describe(&error))?;
    let (node, uid) = (kubelet.clone(), uid.to_owned());
    let removed = tokio::task::spawn_blocking(move || {
        node.network.detach(&uid).map_err(|error| describe(&error))?;
        volumes::tear_down(&node.pod_dir(&uid))
    });
    removed.await.map_err(|error| describe(&error))?
}

/// As the kubelet lays out cgroups: Guaranteed pods at the top, the others below their class.
fn cgroup(pod: &Pod) -> PathBuf {
    let name = format!("pod{}", pod.metadata.uid.as_deref().unwrap_or_default());
    match qos::class(pod) {
        "Guaranteed" => PathBuf::from(name),
        class => PathBuf::from(class.to_lowercase()).join(name),
    }
}

fn sysctls(pod: &Pod) -> BTreeMap<String, String> {
    let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let all = context.and_then(|c| c.sysctls.as_deref()).unwrap_or_default();
    all.iter()
        .map(|s| (s.name.replace('/', "."), s.value.clone()))
        .collect()
}
