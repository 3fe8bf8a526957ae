//! Endpoint ready to reachable: from the event that a Pod is Ready to the first connection through its Service.

use crate::figure;
use crate::inside::{delete, is_ready, pods, until, watch_pods};
use anyhow::{Context, Result};
use coracle_client::Client;
use coracle_meta::GroupVersionResource;
use coracle_meta::object::ObjectExt;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const ROUNDS: usize = 30;
/// Longer than any round may take: a connection that is refused costs some ten microseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// Prints `endpoint_reachable_ms`.
pub async fn measure(client: Client) -> Result<()> {
    let services = GroupVersionResource::new("", "v1", "services");
    let mut samples = Vec::new();
    for n in 0..ROUNDS {
        let name = format!("e-{n}");
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"selector": {"app": name}, "ports": [{"port": 27017}]},
        });
        let service = client.create(&services, "default", &service).await?;
        let ip: Ipv4Addr = service["spec"]["clusterIP"]
            .as_str()
            .context("a cluster IP")?
            .parse()?;
        samples.push(reachable(&client, &name, (ip, 27017).into()).await?);
    }
    figure::print("endpoint_reachable_ms", "ms", &samples);
    Ok(())
}

/// Starts the Service's only Pod and connects from the moment it is Ready until a connection succeeds.
async fn reachable(client: &Client, name: &str, service: SocketAddr) -> Result<f64> {
    let pod: Value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "db", "image": "coracle.local/demo-db:1.0",
            "readinessProbe": {"tcpSocket": {"port": 27017}, "periodSeconds": 1},
        }]},
    });
    let mut watch = watch_pods(client).await?;
    client.create(&pods(), "default", &pod).await?;
    until(&mut watch, |_, pod| pod.name() == name && is_ready(pod)).await?;
    let begin = Instant::now();
    // Without endpoints a Service refuses at once, so that this loop asks again every few microseconds.
    while TcpStream::connect_timeout(&service, LIMIT).is_err() {
        anyhow::ensure!(begin.elapsed() < LIMIT, "{name} was never reachable");
    }
    let elapsed = begin.elapsed().as_secs_f64() * 1000.0;
    delete(client, &[name.to_owned()]).await?;
    Ok(elapsed)
}
