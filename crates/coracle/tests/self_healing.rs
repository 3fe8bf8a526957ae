//! What dies comes back, what is asked for is there, what is sick gets no traffic.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{BUSYBOX, Cluster, eventually};
use serde_json::Value;
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

fn start() -> Result<Cluster> {
    let cluster = Cluster::start(BINARY)?;
    cluster.load_busybox()?;
    Ok(cluster)
}

fn replica_set(replicas: u32, command: &str, extra: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {BUSYBOX}
        command: [sh, -c, '{command}']
{extra}"
    )
}

fn running(cluster: &Cluster, count: usize) -> Result<Vec<Value>> {
    eventually(&format!("{count} Pods ready"), SOON, || {
        let pods = cluster.get_json(&["pods", "-l", "app=web"])?;
        let pods = pods["items"].as_array().context("items")?.clone();
        let ready = pods.iter().filter(|pod| {
            pod["metadata"]["deletionTimestamp"].is_null()
                && pod["status"]["containerStatuses"][0]["ready"] == true
        });
        ensure!(
            ready.count() == count && pods.len() == count,
            "{}",
            cluster.kubectl(&["get", "pods", "-o", "wide"])?
        );
        Ok(pods)
    })
}

#[test]
fn a_deleted_pod_is_replaced_and_scaling_goes_both_ways() -> Result<()> {
    let cluster = start()?;
    cluster.apply(&replica_set(
        2,
        "trap exit TERM; while true; do sleep 1; done",
        "",
    ))?;
    let before = running(&cluster, 2)?;
    let victim = before[0]["metadata"]["name"].as_str().context("a name")?;
    cluster.kubectl(&["delete", "pod", victim])?;
    let after = running(&cluster, 2)?;
    assert!(after.iter().all(|pod| pod["metadata"]["name"] != victim));
    assert_eq!(
        cluster.kubectl(&["scale", "rs", "web", "--replicas=4"])?.trim(),
        "replicaset.apps/web scaled"
    );
    running(&cluster, 4)?;
    cluster.kubectl(&["scale", "rs", "web", "--replicas=1"])?;
    running(&cluster, 1)?;
    let described = cluster.kubectl(&["describe", "rs", "web"])?;
    assert!(
        described.contains("SuccessfulCreate") && described.contains("SuccessfulDelete"),
        "{described}"
    );
    Ok(())
}

/// Kills the container's first process from the host: the one that runs `sleep 3600` under this cluster's daemon.
fn kill_sleep(cluster: &Cluster) -> Result<()> {
    let mark = cluster.directory().to_string_lossy().into_owned();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(command) = std::fs::read(path.join("cmdline")) else {
            continue;
        };
        // Only this cluster mounts its own directory as the root of the process.
        let mounts = std::fs::read_to_string(path.join("mountinfo")).unwrap_or_default();
        if command.starts_with(b"sleep\x003600") && mounts.contains(&mark) {
            let pid = path.file_name().context("a pid")?.to_string_lossy().into_owned();
            ensure!(
                std::process::Command::new("kill")
                    .args(["-9", &pid])
                    .status()?
                    .success(),
                "kill {pid}"
            );
            return Ok(());
        }
    }
    anyhow::bail!("no process of the container")
}

#[test]
fn a_killed_process_is_restarted_with_back_off() -> Result<()> {
    let cluster = start()?;
    cluster.apply(&replica_set(1, "sleep 3600", ""))?;
    let pod = running(&cluster, 1)?.remove(0);
    let name = pod["metadata"]["name"].as_str().context("a name")?.to_owned();
    kill_sleep(&cluster)?;
    eventually("a restart", SOON, || {
        let pod = cluster.get_json(&["pod", &name])?;
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(status["restartCount"] == 1 && status["ready"] == true, "{status}");
        assert_eq!(status["lastState"]["terminated"]["exitCode"], 137, "{status}");
        Ok(())
    })?;
    cluster.kubectl(&[
        "run",
        "dies",
        "--image",
        BUSYBOX,
        "--",
        "sh",
        "-c",
        "echo last words; exit 3",
    ])?;
    eventually("the crash loop", SOON, || {
        let table = cluster.kubectl(&["get", "pod", "dies"])?;
        ensure!(
            table.contains("CrashLoopBackOff") || table.contains("Error"),
            "{table}"
        );
        let pod = cluster.get_json(&["pod", "dies"])?;
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(status["restartCount"].as_u64() >= Some(1), "{status}");
        assert_eq!(status["lastState"]["terminated"]["exitCode"], 3, "{status}");
        Ok(())
    })?;
    eventually("the previous log", SOON, || {
        let log = cluster.kubectl(&["logs", "-p", "dies"])?;
        ensure!(log == "last words\n", "{log}");
        Ok(())
    })?;
    eventually("the back-off event", SOON, || {
        let described = cluster.kubectl(&["describe", "pod", "dies"])?;
        ensure!(
            described.contains("Back-off restarting failed container dies in pod dies_default"),
            "{described}"
        );
        Ok(())
    })
}

#[test]
fn probes_decide_about_traffic_and_life() -> Result<()> {
    let cluster = start()?;
    cluster.apply(&replica_set(
        1,
        "touch /tmp/ready /tmp/alive; while true; do sleep 1; done",
        "        readinessProbe: {exec: {command: [test, -f, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}
        livenessProbe: {exec: {command: [test, -f, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
",
    ))?;
    let pod = running(&cluster, 1)?.remove(0);
    let name = pod["metadata"]["name"].as_str().context("a name")?.to_owned();
    let endpoints = |ready: bool| {
        eventually(&format!("an endpoint with ready={ready}"), SOON, || {
            let slices = cluster.get_json(&["endpointslices", "-l", "kubernetes.io/service-name=web"])?;
            let conditions = &slices["items"][0]["endpoints"][0]["conditions"];
            ensure!(conditions["ready"] == ready, "{slices}");
            Ok(())
        })
    };
    endpoints(true)?;
    cluster.kubectl(&["exec", &name, "--", "rm", "/tmp/ready"])?;
    endpoints(false)?;
    cluster.kubectl(&["exec", &name, "--", "touch", "/tmp/ready"])?;
    endpoints(true)?;
    cluster.kubectl(&["exec", &name, "--", "rm", "/tmp/alive"])?;
    eventually("the restart", SOON, || {
        let pod = cluster.get_json(&["pod", &name])?;
        ensure!(
            pod["status"]["containerStatuses"][0]["restartCount"] == 1,
            "{}",
            pod["status"]
        );
        Ok(())
    })?;
    let described = cluster.kubectl(&["describe", "pod", &name])?;
    assert!(described.contains("Liveness probe failed"), "{described}");
    Ok(())
}
