//! `kill -9`, Ctrl-C and a new start: what was answered is kept, what runs goes on, and packets flow meanwhile.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{BUSYBOX, Cluster, eventually};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

fn workload() -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {{name: web, image: {BUSYBOX}, command: [sh, -c, 'hostname > /www/index.html; exec httpd -f -p 80 -h /www']}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}
"
    )
}

/// Name, address, container id and restart count of each Pod.
fn pods(cluster: &Cluster) -> Result<BTreeMap<String, (String, String, u64)>> {
    let pods = cluster.get_json(&["pods", "-l", "app=web"])?;
    pods["items"]
        .as_array()
        .context("items")?
        .iter()
        .map(|pod: &Value| {
            let container = &pod["status"]["containerStatuses"][0];
            let text = |value: &Value| value.as_str().map(str::to_owned).context("a string");
            Ok((
                text(&pod["metadata"]["name"])?,
                (
                    text(&pod["status"]["podIP"])?,
                    text(&container["containerID"])?,
                    container["restartCount"].as_u64().context("a count")?,
                ),
            ))
        })
        .collect()
}

fn reaches(cluster: &Cluster, ip: &str) -> Result<()> {
    let output = cluster
        .network()
        .on_node("curl")
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "10",
            &format!("http://{ip}/"),
        ])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn restarts_touch_no_container_and_no_packet() -> Result<()> {
    let mut cluster = Cluster::start(BINARY)?;
    cluster.load_busybox()?;
    cluster.apply(&workload())?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/web",
        "--timeout=60s",
    ])?;
    let before = pods(&cluster)?;
    assert_eq!(before.len(), 2);
    let ip = cluster.kubectl(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    eventually("the Service answers", SOON, || reaches(&cluster, &ip))?;

    // What was answered before the kill must be there after it.
    for n in 0..20 {
        cluster.kubectl(&["create", "configmap", &format!("c{n}"), "--from-literal=a=b"])?;
    }
    cluster.kill()?;
    for _ in 0..20 {
        reaches(&cluster, &ip)?;
    }
    cluster.up()?;
    let names = cluster.kubectl(&["get", "configmaps", "-o", "name"])?;
    assert!(
        (0..20).all(|n| names.contains(&format!("configmap/c{n}\n"))),
        "{names}"
    );
    assert_eq!(pods(&cluster)?, before, "containers are adopted, not restarted");
    for _ in 0..20 {
        reaches(&cluster, &ip)?;
    }

    cluster.interrupt()?;
    reaches(&cluster, &ip)?;
    cluster.up()?;
    assert_eq!(pods(&cluster)?, before);

    // The cluster lives on: it heals and it forwards.
    let victim = before.keys().next().context("a Pod")?;
    cluster.kubectl(&["delete", "pod", victim])?;
    eventually("another Pod is ready", SOON, || {
        let ready = cluster.kubectl(&[
            "get",
            "deployment",
            "web",
            "-o",
            "jsonpath={.status.readyReplicas}",
        ])?;
        ensure!(ready == "2" && !pods(&cluster)?.contains_key(victim), "{ready}");
        Ok(())
    })?;
    eventually("the Service answers", SOON, || reaches(&cluster, &ip))
}

#[test]
fn what_happens_while_the_daemon_is_down_is_seen_when_it_returns() -> Result<()> {
    let mut cluster = Cluster::start(BINARY)?;
    cluster.load_busybox()?;
    cluster.kubectl(&[
        "run",
        "job",
        "--image",
        BUSYBOX,
        "--restart=Never",
        "--",
        "sh",
        "-c",
        "while [ ! -f /tmp/go ]; do sleep 0.1; done; echo done; exit 7",
    ])?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/job", "--timeout=60s"])?;
    // The container ends a moment after its daemon has.
    cluster.kubectl(&[
        "exec",
        "job",
        "--",
        "sh",
        "-c",
        "(sleep 1; touch /tmp/go) >/dev/null 2>&1 &",
    ])?;
    cluster.kill()?;
    std::thread::sleep(Duration::from_secs(2));
    cluster.up()?;
    eventually("the exit is reported", SOON, || {
        let pod = cluster.get_json(&["pod", "job"])?;
        let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        ensure!(
            pod["status"]["phase"] == "Failed" && state["exitCode"] == 7,
            "{}",
            pod["status"]
        );
        Ok(())
    })?;
    assert_eq!(cluster.kubectl(&["logs", "job"])?, "done\n");
    Ok(())
}
