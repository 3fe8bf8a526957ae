//! The part of a measurement that runs on the node's network, with a client of its own.

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use coracle_client::tls_transport::{TlsOptions, TlsTransport};
use coracle_client::watch::{FrameType, WatchStream};
use coracle_client::{Client, DeleteOptions, ListOptions};
use coracle_meta::GroupVersionResource;
use coracle_meta::object::ObjectExt;
use coracle_reconcile::Key;
use coracle_testkit::Cluster;
use serde_json::Value;
use std::collections::HashSet;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

/// Starts a cluster with the demo's images and measures in it.
pub fn measure(binary: &Path, what: &str) -> Result<()> {
    let cluster = Cluster::start(&binary.to_string_lossy())?;
    cluster.load_demo_images()?;
    let own = std::env::current_exe().context("cannot find this program")?;
    let status = cluster
        .network()
        .on_node(&own.to_string_lossy())
        .args(["inside", what])
        .arg(cluster.kubeconfig())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        bail!("measuring {what}: {status}\n{}", cluster.logs())
    }
}

/// Runs a measurement with a client made from a kubeconfig.
pub fn run<F: Future<Output = Result<()>>>(
    kubeconfig: &str,
    measure: impl FnOnce(Client) -> F,
) -> Result<()> {
    let client = client(kubeconfig).with_context(|| format!("cannot use {kubeconfig}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(client))
}

fn client(kubeconfig: &str) -> Result<Client> {
    let config: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig)?)?;
    let cluster = &config["clusters"][0]["cluster"];
    let user = &config["users"][0]["user"];
    let decode = |value: &Value| -> Result<Vec<u8>> {
        let text = value
            .as_str()
            .ok_or_else(|| anyhow!("not the kubeconfig that coracle writes"))?;
        Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
    };
    let server = cluster["server"]
        .as_str()
        .unwrap_or_default()
        .trim_start_matches("https://");
    let (host, port) = server
        .rsplit_once(':')
        .ok_or_else(|| anyhow!("server has no port"))?;
    let options = TlsOptions {
        host: host.to_owned(),
        port: port.parse()?,
        ca_pem: decode(&cluster["certificate-authority-data"])?,
        client_pem: Some((
            decode(&user["client-certificate-data"])?,
            decode(&user["client-key-data"])?,
        )),
    };
    Ok(Client::new(Arc::new(TlsTransport::new(&options)?)))
}

/// The resource `pods`.
pub fn pods() -> GroupVersionResource {
    GroupVersionResource::new("", "v1", "pods")
}

/// Watches the Pods of the namespace `default` from now on.
pub async fn watch_pods(client: &Client) -> Result<WatchStream> {
    let listed: Value =
        serde_json::from_slice(&client.list(&pods(), "default", &ListOptions::default()).await?)?;
    let version = listed["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let options = ListOptions {
        resource_version: version,
        ..ListOptions::default()
    };
    Ok(client.watch(&pods(), "default", &options).await?)
}

/// Waits until the watch shows a change of a Pod that fits.
pub async fn until(watch: &mut WatchStream, mut fits: impl FnMut(FrameType, &Value) -> bool) -> Result<()> {
    while let Some(frame) = watch.next().await? {
        if fits(frame.frame_type, &serde_json::from_slice(&frame.object)?) {
            return Ok(());
        }
    }
    bail!("the watch ended")
}

/// Deletes Pods and waits until the node has taken them down: what is measured next shall have the machine for itself.
pub async fn delete(client: &Client, names: &[String]) -> Result<()> {
    let mut watch = watch_pods(client).await?;
    let mut waiting: HashSet<&str> = names.iter().map(String::as_str).collect();
    // A grace period of zero would remove the objects before their containers.
    let options = DeleteOptions {
        grace_seconds: Some(1),
        ..DeleteOptions::default()
    };
    for name in names {
        client
            .delete(&pods(), &Key::new("default", name.as_str()), &options)
            .await?;
    }
    until(&mut watch, |change, pod| {
        if change == FrameType::Deleted {
            waiting.remove(pod.name());
        }
        waiting.is_empty()
    })
    .await
}

/// Whether a Pod's condition `Ready` is `True`.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}
