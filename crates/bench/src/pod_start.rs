//! Pod created to Ready, its image present: one after another, and many at once.

use crate::figure;
use crate::inside::{delete, is_ready, pods, until, watch_pods};
use anyhow::Result;
use coracle_client::Client;
use coracle_meta::object::ObjectExt;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Instant;

const ONE_BY_ONE: usize = 20;
const AT_ONCE: usize = 30;
const ROUNDS: usize = 3;

/// Prints `pod_ready_ms` and `pods30_ready_ms`.
pub async fn measure(client: Client) -> Result<()> {
    let mut samples = Vec::new();
    for n in 0..ONE_BY_ONE {
        let name = format!("one-{n}");
        samples.push(start(&client, std::slice::from_ref(&name)).await?);
        delete(&client, &[name]).await?;
    }
    figure::print("pod_ready_ms", "ms", &samples);
    samples.clear();
    for round in 0..ROUNDS {
        let names: Vec<String> = (0..AT_ONCE).map(|n| format!("many-{round}-{n}")).collect();
        samples.push(start(&client, &names).await?);
        delete(&client, &names).await?;
    }
    figure::print("pods30_ready_ms", "ms", &samples);
    Ok(())
}

/// A Pod of one container without probes: Ready as soon as it runs.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"terminationGracePeriodSeconds": 0,
                 "containers": [{"name": "db", "image": "coracle.local/demo-db:1.0"}]},
    })
}

/// Creates Pods and waits until all are Ready; milliseconds from the first request.
async fn start(client: &Client, names: &[String]) -> Result<f64> {
    let mut watch = watch_pods(client).await?;
    let begin = Instant::now();
    let mut waiting: HashSet<&str> = names.iter().map(String::as_str).collect();
    for name in names {
        client.create(&pods(), "default", &pod(name)).await?;
    }
    until(&mut watch, |_, pod| {
        if is_ready(pod) {
            waiting.remove(pod.name());
        }
        waiting.is_empty()
    })
    .await?;
    Ok(begin.elapsed().as_secs_f64() * 1000.0)
}
