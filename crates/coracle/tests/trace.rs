//! `coracle trace`: the story of a Service's last change, as it really went.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{Cluster, Finished, eventually, web_servers};
use serde_json::Value;
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

fn manifests() -> String {
    format!(
        "{}---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
",
        web_servers("web", 1)
    )
}

fn trace(cluster: &Cluster, args: &[&str]) -> Result<Finished> {
    let mut command = cluster.coracle();
    command
        .arg("trace")
        .args(args)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig());
    Ok(command.output().context("cannot run coracle")?.into())
}

/// The steps as (part, text), when those that are wanted are all there, in this order.
fn steps(cluster: &Cluster, parts: &[&str]) -> Result<Vec<(String, String)>> {
    eventually("the story", SOON, || {
        let told = trace(cluster, &["svc/web", "--output", "json"])?;
        ensure!(told.ok, "{}", told.stderr);
        let story: Value = serde_json::from_str(&told.stdout)?;
        let steps = story["steps"].as_array().context("no steps")?;
        let found: Vec<&str> = steps.iter().filter_map(|step| step["part"].as_str()).collect();
        ensure!(found == parts, "{story:#}");
        let times: Vec<i64> = steps
            .iter()
            .filter_map(|step| step["afterMicroseconds"].as_i64())
            .collect();
        ensure!(
            times.len() == steps.len() && times.is_sorted() && times[0] == 0,
            "{times:?}"
        );
        let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
        Ok(steps
            .iter()
            .map(|step| (text(step, "part"), text(step, "text")))
            .collect())
    })
}

fn connect(cluster: &Cluster) -> Result<String> {
    let ip = cluster.kubectl(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    let url = format!("http://{ip}/");
    let output = cluster
        .network()
        .on_node("curl")
        .args(["--silent", "--max-time", "5", &url])
        .output()?;
    ensure!(output.status.success(), "curl {url}: {}", output.status);
    Ok(ip)
}

#[test]
fn a_change_is_told_from_the_write_to_the_first_packet() -> Result<()> {
    let mut cluster = Cluster::start(BINARY)?;
    cluster.load_busybox()?;
    cluster.apply(&manifests())?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/web",
        "--timeout=60s",
    ])?;
    let ready = ["apiServer", "apiServer", "serviceProxy", "kernel"];
    let told = steps(&cluster, &ready)?;
    assert!(
        told[0].1.starts_with("Pod web-") && told[0].1.contains("became ready, by kubelet"),
        "{told:?}"
    );
    assert!(told[1].1.contains("has 1 ready +10.244."), "{told:?}");
    assert!(told[3].1.contains("in one transaction of"), "{told:?}");

    let ip = connect(&cluster)?;
    let told = steps(
        &cluster,
        &["apiServer", "apiServer", "serviceProxy", "kernel", "firstPacket"],
    )?;
    assert!(
        told[4].1.contains(&format!("to {ip}:80, sent to 10.244.")),
        "{told:?}"
    );

    // A change of the Service alone: another story, without a first packet yet, and without names: they are the same.
    let patch = r#"{"spec":{"sessionAffinity":"ClientIP"}}"#;
    cluster.kubectl(&["patch", "service", "web", "-p", patch])?;
    let told = eventually("the new story", SOON, || {
        let told = trace(&cluster, &["web"])?.stdout;
        ensure!(
            told.contains("sessionAffinity") && told.contains("kernel"),
            "{told}"
        );
        Ok(told)
    })?;
    assert!(!told.contains("cluster DNS"), "{told}");
    assert!(
        told.contains("Service web changed: spec.sessionAffinity"),
        "{told}"
    );
    assert!(told.contains("by kubectl-patch (revision "), "{told}");
    assert!(
        told.contains("no connection that began since is tracked"),
        "{told}"
    );

    // The condition of a Service that nobody is behind comes ten seconds later, and is no change on its way to packets.
    let nobody = "apiVersion: v1\nkind: Service\nmetadata: {name: nobody}\nspec: {selector: {app: nobody}, ports: [{port: 80}]}\n";
    cluster.apply(nobody)?;
    cluster.kubectl(&[
        "wait",
        "service/nobody",
        "--for=condition=coracle.dev/Reachable=False",
        "--timeout=60s",
    ])?;
    let told = trace(&cluster, &["nobody", "--output", "json"])?.stdout;
    let story: Value = serde_json::from_str(&told)?;
    let steps = story["steps"].as_array().context("no steps")?;
    assert_eq!(
        steps[0]["text"], "Service nobody created, by kubectl-client-side-apply",
        "{story:#}"
    );
    for part in ["serviceProxy", "kernel", "clusterDns"] {
        assert!(steps.iter().any(|step| step["part"] == part), "{story:#}");
    }
    let at_once = |step: &Value| {
        step["afterMicroseconds"]
            .as_i64()
            .is_some_and(|after| after < 5_000_000)
    };
    assert!(steps.iter().all(at_once), "{story:#}");
    // An annotation is a change, too: packets may depend on it.
    cluster.kubectl(&[
        "annotate",
        "service",
        "nobody",
        "coracle.dev/balancing=round-robin",
    ])?;
    eventually("the story of an annotation", SOON, || {
        let told = trace(&cluster, &["nobody"])?.stdout;
        let written = "Service nobody changed: metadata.annotations, by kubectl-annotate";
        ensure!(told.contains(written) && told.contains("kernel"), "{told}");
        Ok(())
    })?;

    // What was written before the daemon's start is not remembered, and the story says so.
    cluster.kill()?;
    cluster.up()?;
    let told = eventually("the story after a start", SOON, || {
        let told = trace(&cluster, &["web"])?;
        ensure!(told.ok && told.stdout.contains("kernel"), "{told:?}");
        Ok(told.stdout)
    })?;
    assert!(told.contains("service proxy"), "{told}");

    let none = trace(&cluster, &["svc/nothing"])?;
    assert!(
        !none.ok && none.stderr.contains("\"nothing\" not found"),
        "{none:?}"
    );
    Ok(())
}

/// The story is for whoever may `get` `nodes/proxy`, as everything else that nodes tell.
#[test]
fn ordinary_authorisation_decides_who_is_told() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    let path = "/api/v1/nodes/node-1/proxy/debug/services/default/kubernetes";
    let allowed = cluster.try_kubectl(&["get", "--raw", path])?;
    assert!(allowed.ok && allowed.stdout.contains("\"steps\""), "{allowed:?}");
    let denied = cluster.try_kubectl(&["get", "--raw", path, "--as", "somebody"])?;
    assert!(!denied.ok && denied.stderr.contains("nodes/proxy"), "{denied:?}");
    Ok(())
}
