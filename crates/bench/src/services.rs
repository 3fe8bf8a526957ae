//! Services and endpoints as a cluster of a thousand nodes has them, for the data plane and DNS of one of them.

use crate::machine::{POD_CIDR, SERVICE_CIDR};
use anyhow::{Context, Result};
use coracle_dataplane::{Config, ServiceKey};
use coracle_node::DataPlane;
use coracle_node::service_proxy::{Event, ServiceProxy};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How many Services are many.
pub const MANY: u32 = 10_000;
/// Endpoints of each.
pub const ENDPOINTS: u32 = 10;
/// Pods of this node among all: one of so many.
const NODES: u32 = 1_000;
/// Where they are.
pub const NAMESPACE: &str = "default";
/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Name of a Service.
pub fn name(number: u32) -> String {
    format!("service-{number}")
}

/// Namespace and name of a Service.
pub fn key(number: u32) -> ServiceKey {
    ServiceKey::new(NAMESPACE, name(number))
}

/// Its address.
pub fn cluster_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 97, 0, 0).to_bits() + number)
}

/// The address of a Pod of the cluster, none of which runs here.
pub fn pod_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 130, 0, 0).to_bits() + number)
}

/// The Pods behind a Service.
pub fn pods_of(number: u32) -> Vec<u32> {
    (number * ENDPOINTS..(number + 1) * ENDPOINTS).collect()
}

/// A Service as its controller and the API server leave it.
pub fn service(number: u32) -> Result<Service> {
    let ip = cluster_ip(number).to_string();
    let name = name(number);
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    }))?)
}

/// A Service's EndpointSlice with these Pods, all of them ready.
pub fn slice(number: u32, pods: &[u32]) -> Result<EndpointSlice> {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|pod| {
            json!({
                "addresses": [pod_ip(*pod)], "nodeName": format!("node-{}", pod % NODES),
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": format!("pod-{pod}")},
            })
        })
        .collect();
    let name = name(number);
    Ok(serde_json::from_value(json!({
        "metadata": {"name": format!("{name}-abcde"), "namespace": NAMESPACE,
                     "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    }))?)
}

/// What a proxy is told of so many Services.
pub fn events(services: u32) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for number in 0..services {
        events.push(Event::Service(Box::new(service(number)?)));
        events.push(Event::EndpointSlice(Box::new(slice(number, &pods_of(number))?)));
    }
    Ok(events)
}

/// A data plane as a node of the cluster has it.
pub fn config() -> Result<Config> {
    Ok(Config {
        node_name: "node-0".into(),
        pod_cidrs: vec![POD_CIDR.parse()?],
        service_cidrs: vec![SERVICE_CIDR.parse()?],
        ..Config::default()
    })
}

/// Waits until the kernel has all that a proxy was told.
pub fn settle(proxy: &ServiceProxy) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let nobodys = Ipv4Addr::new(198, 51, 100, 255).into();
    runtime.block_on(async {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        proxy.drained(nobodys, deadline).await;
        let in_time = tokio::time::Instant::now() < deadline;
        in_time.then_some(()).context("the data plane did not keep up")
    })
}
