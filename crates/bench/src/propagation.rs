//! How long a change takes from the API to the packets: an endpoint that becomes ready, a Service that is made. In a
//! cluster with nothing else in it, and in one with 5,000 Services of ten endpoints each.

use crate::figure;
use crate::inside::{is_ready, pods, until, watch_pods};
use anyhow::{Context, Result, ensure};
use coracle_client::watch::WatchStream;
use coracle_client::{Client, DeleteOptions};
use coracle_meta::GroupVersionResource;
use coracle_meta::object::ObjectExt;
use coracle_reconcile::{Key, PatchType};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const ROUNDS: usize = 200;
/// Not counted: the first of anything pays for what the others find ready.
const WARM_UP: usize = 10;
const MANY: u32 = 5_000;
const ENDPOINTS: u32 = 10;
/// Requests under way at once while the many are made.
const AT_ONCE: usize = 16;
/// What a load of objects leaves to do is done after that.
const QUIET: Duration = Duration::from_secs(5);
/// Longer than any round may take, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// An address that is no Service's yet does not answer at all: the kernel would ask again after a second.
const ATTEMPT: Duration = Duration::from_millis(1);
/// Between attempts. A client that never rests takes a processor from the cluster for a whole time slice (2.8 ms with
/// two processors), and that is then what is measured.
const PAUSE: Duration = Duration::from_micros(50);
const NAME: &str = "web";
const PORT: u16 = 27017;
/// Whether the Pod is ready is up to this condition, which is written from here.
const GATE: &str = "coracle.dev/gate";

/// Prints `ready_to_reachable_ms` and `service_to_connect_ms`, and both once more with many Services.
pub async fn measure(client: Client) -> Result<()> {
    start_pod(&client).await?;
    let address = create_service(&client, NAME).await?;
    for count in [0, MANY] {
        load(&client, count).await?;
        // Everything before it has gone the same way. It does not stay: the Pod's turn from unready to ready would be
        // a change of two Services.
        let last = create_service(&client, "last").await?;
        spin(last, true)?;
        let key = Key::new("default", "last");
        client
            .delete(&services(), &key, &DeleteOptions::default())
            .await?;
        spin(last, false)?;
        tokio::time::sleep(QUIET).await;
        let suffix = match count {
            0 => String::new(),
            many => format!("{many}_"),
        };
        let name = format!("ready_to_reachable_{suffix}ms");
        figure::print(&name, "ms", &ready_to_reachable(&client, address).await?);
        let name = format!("service_to_connect_{suffix}ms");
        figure::print(&name, "ms", &service_to_connect(&client).await?);
    }
    Ok(())
}

/// From the event that says Ready, as a client of the API sees it, to the first connection through the Service.
async fn ready_to_reachable(client: &Client, service: SocketAddr) -> Result<Vec<f64>> {
    let mut watch = watch_pods(client).await?;
    let mut samples = Vec::new();
    for _ in 0..WARM_UP + ROUNDS {
        set_gate(client, &mut watch, false).await?;
        spin(service, false)?;
        set_gate(client, &mut watch, true).await?;
        let begin = Instant::now();
        spin(service, true)?;
        samples.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(samples.split_off(WARM_UP))
}

/// From before the request that makes a Service to the first connection through it.
async fn service_to_connect(client: &Client) -> Result<Vec<f64>> {
    let mut samples = Vec::new();
    for round in 0..WARM_UP + ROUNDS {
        let begin = Instant::now();
        let service = create_service(client, &format!("new-{round}")).await?;
        spin(service, true)?;
        samples.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    // Not in between: the next one may get the address of one that has gone, but not yet from the kernel.
    for round in 0..WARM_UP + ROUNDS {
        let key = Key::new("default", format!("new-{round}"));
        let options = DeleteOptions::default();
        client.delete(&services(), &key, &options).await?;
    }
    Ok(samples.split_off(WARM_UP))
}

/// Connects until that succeeds, or fails. A Service without endpoints refuses at once.
fn spin(service: SocketAddr, reachable: bool) -> Result<()> {
    let begin = Instant::now();
    while TcpStream::connect_timeout(&service, ATTEMPT).is_ok() != reachable {
        ensure!(
            begin.elapsed() < LIMIT,
            "{service}: reachable={reachable} did not come to be"
        );
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Opens or closes the gate, and returns when the Pod's condition Ready has followed.
async fn set_gate(client: &Client, watch: &mut WatchStream, open: bool) -> Result<()> {
    let status = if open { "True" } else { "False" };
    let patch = json!({"status": {"conditions": [{"type": GATE, "status": status}]}});
    let key = Key::new("default", NAME);
    client
        .patch(&pods(), &key, "status", PatchType::Strategic, &patch)
        .await?;
    until(watch, |_, pod| pod.name() == NAME && is_ready(pod) == open).await
}

async fn start_pod(client: &Client) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": NAME, "namespace": "default", "labels": {"app": NAME}},
        "spec": {
            "readinessGates": [{"conditionType": GATE}],
            "containers": [{"name": "db", "image": "coracle.local/demo-db:1.0"}],
        },
    });
    let mut watch = watch_pods(client).await?;
    client.create(&pods(), "default", &pod).await?;
    let mut ip = None;
    until(&mut watch, |_, pod| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let runs = { conditions }.any(|c| c["type"] == "ContainersReady" && c["status"] == "True");
        ip = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok());
        runs && ip.is_some()
    })
    .await?;
    let ip: Ipv4Addr = ip.context("a Pod address")?;
    // Without a probe a container counts as ready before its program listens.
    spin((ip, PORT).into(), true)?;
    set_gate(client, &mut watch, true).await
}

/// A Service for the Pod; returns where it is to be found.
async fn create_service(client: &Client, name: &str) -> Result<SocketAddr> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": NAME}, "ports": [{"port": PORT}]},
    });
    let service = client.create(&services(), "default", &service).await?;
    let ip = service["spec"]["clusterIP"].as_str().context("a cluster IP")?;
    Ok((ip.parse::<Ipv4Addr>()?, PORT).into())
}

/// Services without a selector and their endpoints, which are nowhere.
async fn load(client: &Client, count: u32) -> Result<()> {
    let make = |number: u32| async move {
        let name = format!("many-{number}");
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"ports": [{"port": 80}]},
        });
        client.create(&services(), "default", &service).await?;
        let endpoints: Vec<Value> = (number * ENDPOINTS..(number + 1) * ENDPOINTS)
            .map(|pod| {
                let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 200, 0, 0).to_bits() + pod);
                json!({"addresses": [ip], "conditions": {"ready": true}, "nodeName": "elsewhere"})
            })
            .collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{name}-a"), "namespace": "default",
                         "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 8080}], "endpoints": endpoints,
        });
        let slices = GroupVersionResource::new("discovery.k8s.io", "v1", "endpointslices");
        client.create(&slices, "default", &slice).await?;
        anyhow::Ok(())
    };
    stream::iter(0..count)
        .map(make)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

fn services() -> GroupVersionResource {
    GroupVersionResource::new("", "v1", "services")
}
