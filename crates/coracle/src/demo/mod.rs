//! `coracle demo`: a cluster from nothing, the Service tutorial's two acts, and what happened when.

mod http;
pub mod image;
mod manifests;
pub mod program;

use crate::cli::DemoArgs;
use crate::cluster::progress::{format_duration, line};
use crate::cluster::stop::StopSignals;
use crate::cluster::traces::Traces;
use crate::cluster::{Cluster, teardown};
use crate::config::{ClusterConfig, DEFAULT_DATA_DIR};
use anyhow::{Context, Result, anyhow, bail};
use coracle_client::watch::WatchStream;
use coracle_client::{Client, ListOptions};
use coracle_meta::GroupVersionResource;
use coracle_meta::object::ObjectExt;
use coracle_reconcile::Key;
use jiff::Timestamp;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long the Pods may take, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long blocking work, such as unpacking an image, may hold up the end.
const STOP: Duration = Duration::from_secs(10);

/// Runs the demonstration. Whatever comes of it, nothing of a temporary cluster is left.
pub fn run(args: DemoArgs) -> Result<()> {
    let directory = tempfile::Builder::new()
        .prefix("coracle-demo-")
        .tempdir()
        .context("no temporary directory")?;
    let temporary = args.cluster.data_dir == Path::new(DEFAULT_DATA_DIR);
    let config = if temporary {
        in_directory(args.cluster, directory.path())
    } else {
        args.cluster
    };
    let mut traces = Traces::before(&config)?;
    let runtime = crate::runtime()?;
    let shown = runtime.block_on(demonstrate(&config, &mut traces, args.exit));
    // Only when no task is left does the kernel give the cluster's rules to somebody else.
    runtime.shutdown_timeout(STOP);
    let runtime = crate::runtime()?;
    match shown {
        Ok(shown) => {
            drop(traces);
            shown.and(runtime.block_on(teardown::run(&config, temporary)))
        }
        Err(failed) => {
            runtime.block_on(traces.take_back(&config))?;
            Err(failed)
        }
    }
}

/// The outer error is that of the start, the inner one that of the demonstration.
async fn demonstrate(config: &ClusterConfig, traces: &mut Traces, exit: bool) -> Result<Result<()>> {
    line(&format!("Starting a cluster in {}", config.data_dir.display()));
    let mut signals = StopSignals::listen()?;
    let mut cluster = Cluster::start(config.clone(), traces, &mut signals).await?;
    // Cancel-safe: the cluster goes, and with it all that the demonstration has made.
    let shown = tokio::select! {
        shown = show(&cluster) => shown,
        () = signals.requested() => Err(anyhow!("stopped before the end")),
    };
    let stayed = if shown.is_ok() && !exit {
        stay(&mut cluster, &mut signals).await
    } else {
        Ok(())
    };
    cluster.stop().await;
    Ok(shown.and(stayed))
}

fn in_directory(mut config: ClusterConfig, directory: &Path) -> ClusterConfig {
    config.data_dir = directory.join("data");
    config.run_dir = directory.join("run");
    config
}

async fn show(cluster: &Cluster) -> Result<()> {
    let client = cluster.client();
    let begin = Instant::now();
    image::load(&cluster.config().data_dir).await?;
    line(&format!(
        "  images {} and {}, made from this binary ({})",
        image::DB,
        image::API,
        format_duration(begin.elapsed())
    ));

    line("\nTwo Pods of two containers each, found through a Service");
    create(
        client,
        "manifests/tutorial/go-demo-2-rs.yml",
        manifests::REPLICA_SET,
    )
    .await?;
    replicas(client, "go-demo-2").await?;
    line("  $ kubectl expose rs go-demo-2 --name=go-demo-2-svc --target-port=28017 --type=NodePort");
    let sent = Timestamp::now();
    let service = manifests::expose(client, "go-demo-2", "go-demo-2-svc", program::DB_HTTP_PORT).await?;
    let stored = Timestamp::now();
    line("    service/go-demo-2-svc exposed");
    call(cluster.node_ip()?, &service, "/").await?;
    let answered = Timestamp::now();

    line("\nDatabase and API apart: the API finds its database by the name of a Service");
    create(client, "manifests/tutorial/go-demo-2-split.yml", manifests::SPLIT).await?;
    replicas(client, "go-demo-2-db").await?;
    replicas(client, "go-demo-2-api").await?;
    let services = GroupVersionResource::new("", "v1", "services");
    let service = client
        .get(&services, &Key::new("default", "go-demo-2-api"))
        .await?;
    call(cluster.node_ip()?, &service, "/demo/hello").await?;

    line("\nWhat happened when the Service go-demo-2-svc was created");
    let mut steps = cluster.timeline("default", "go-demo-2-svc");
    steps.push((
        answered,
        "client: the first answer has come through the node port",
    ));
    steps.push((
        stored,
        "API server: the Service is stored, with a ClusterIP and a node port",
    ));
    steps.sort();
    for (at, what) in steps {
        let after = Duration::try_from(at.duration_since(sent)).unwrap_or_default();
        line(&format!("  {:>9}  {what}", format_duration(after)));
    }
    Ok(())
}

async fn create(client: &Client, file: &str, manifest: &str) -> Result<()> {
    line(&format!("  $ kubectl create -f {file}"));
    for created in manifests::create(client, manifest).await? {
        line(&format!("    {created}"));
    }
    Ok(())
}

/// Shows how a ReplicaSet gets ready.
async fn replicas(client: &Client, name: &str) -> Result<()> {
    let begin = Instant::now();
    let watched = async {
        let mut watch = watch_replica_set(client, name).await?;
        let mut last = None;
        while let Some(frame) = watch.next().await? {
            let object: Value = serde_json::from_slice(&frame.object)?;
            let wanted = object.int_at(&["spec", "replicas"]).unwrap_or(1);
            let ready = object.int_at(&["status", "readyReplicas"]).unwrap_or(0);
            if last != Some(ready) {
                last = Some(ready);
                line(&format!(
                    "    {name}: {ready}/{wanted} Pods ready ({})",
                    format_duration(begin.elapsed())
                ));
            }
            if ready == wanted {
                return Ok(());
            }
        }
        bail!("the watch of {name} ended")
    };
    timeout(PATIENCE, watched)
        .await
        .with_context(|| format!("the Pods of {name} did not get ready"))?
}

/// From the state now: the first frame is what exists.
async fn watch_replica_set(client: &Client, name: &str) -> Result<WatchStream> {
    let resource = GroupVersionResource::new("apps", "v1", "replicasets");
    let options = ListOptions {
        field_selector: format!("metadata.name={name}"),
        ..ListOptions::default()
    };
    Ok(client.watch(&resource, "default", &options).await?)
}

/// Calls a Service by its node port, as somebody outside would.
async fn call(node_ip: IpAddr, service: &Value, path: &str) -> Result<()> {
    let port = service["spec"]["ports"][0]["nodePort"]
        .as_u64()
        .and_then(|p| u16::try_from(p).ok());
    let address = SocketAddr::from((node_ip, port.context("the Service has no node port")?));
    line(&format!("  $ curl -i http://{address}{path}"));
    let answer = http::get(address, path).await?;
    answer.lines().for_each(|text| line(&format!("    {text}")));
    Ok(())
}

async fn stay(cluster: &mut Cluster, signals: &mut StopSignals) -> Result<()> {
    let host = match cluster.node_ip()? {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    line(&format!(
        "\nThe cluster stays up until Ctrl-C. Try, in another terminal:
  kubectl get all
  kubectl get pods -o wide
  kubectl describe svc go-demo-2-api
  kubectl scale rs go-demo-2-api --replicas=5
  kubectl delete pod -l type=api --wait=false && kubectl get pods -w
  curl -i http://{host}:$(kubectl get svc go-demo-2-api -o jsonpath='{{.spec.ports[0].nodePort}}')/demo/hello"
    ));
    cluster.until_stopped(signals).await
}
