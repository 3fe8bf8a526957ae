//! Services carry packets: from pods, from the host, from outside; evenly, at once, or refused at once.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{BUSYBOX, Cluster, NODE_IP, eventually, web_servers};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

/// Three Pods that answer with their names: on a named TCP port whose number is told only by the Pod, and on UDP.
fn backends() -> String {
    format!(
        "{}---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec:
  type: NodePort
  selector: {{app: echo}}
  ports:
  - {{name: web, port: 80, targetPort: web, nodePort: 30080}}
  - {{name: alt, port: 81, targetPort: 8080}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: pong}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: pong}}}}
  template:
    metadata: {{labels: {{app: pong}}}}
    spec: {{containers: [{{name: db, image: 'coracle.local/demo-db:1.0'}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: pong}}
spec:
  selector: {{app: pong}}
  ports: [{{name: udp, port: 53, targetPort: 27017, protocol: UDP}}, {{name: tcp, port: 53, targetPort: 27017}}]
---
apiVersion: v1
kind: Service
metadata: {{name: nobody}}
spec: {{selector: {{app: nobody}}, ports: [{{name: t, port: 80}}, {{name: u, port: 80, protocol: UDP}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: sh, image: {BUSYBOX}, command: [sleep, '3600']}}]
",
        web_servers("echo", 3)
    )
}

fn start() -> Result<Cluster> {
    let cluster = Cluster::start(BINARY)?;
    cluster.load_busybox()?;
    cluster.load_demo_images()?;
    cluster.apply(&backends())?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/echo",
        "deployment/pong",
        "--timeout=60s",
    ])?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"])?;
    Ok(cluster)
}

fn cluster_ip(cluster: &Cluster, service: &str) -> Result<String> {
    cluster.kubectl(&["get", "svc", service, "-o", "jsonpath={.spec.clusterIP}"])
}

/// GETs on the node's network, as many as asked for; the body of each.
fn get(cluster: &Cluster, url: &str, times: usize) -> Result<Vec<String>> {
    let mut command = cluster.network().on_node("curl");
    command.args(["--silent", "--show-error", "--fail", "--max-time", "10"]);
    // Close after each answer: a Service chooses once a connection.
    command.args(["--header", "Connection: close"]);
    command.args(vec![url; times]);
    let output = command.output().context("cannot run curl")?;
    ensure!(
        output.status.success(),
        "curl {url}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

/// A shell command that GETs `/` and prints the body's last line. (A static busybox's wget needs the C library's
/// resolver, which is not there.)
fn fetch(address: &str, port: u16) -> String {
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 10 {address} {port} | tail -n 1")
}

/// A shell command that prints the address of a name.
fn lookup(name: &str) -> String {
    format!("nslookup -type=a {name} | sed -n 's/^Address: //p' | tail -n 1")
}

fn in_client(cluster: &Cluster, script: &str) -> Result<String> {
    cluster.kubectl(&["exec", "client", "--", "sh", "-c", script])
}

#[test]
fn every_way_in_reaches_every_pod() -> Result<()> {
    let cluster = start()?;
    let ip = cluster_ip(&cluster, "echo")?;
    // The host to the ClusterIP: a chi-square test over 3,000 connections (2 degrees of freedom, p = 0.001).
    let mut seen: BTreeMap<String, f64> = BTreeMap::new();
    for _ in 0..30 {
        for name in get(&cluster, &format!("http://{ip}/"), 100)? {
            *seen.entry(name).or_default() += 1.0;
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert_eq!(seen.values().sum::<f64>(), 3000.0);
    let chi_square: f64 = seen.values().map(|n| (n - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi_square < 13.8, "chi-square {chi_square}: {seen:?}");

    // Another port of the same Service, with a numbered target.
    assert!(get(&cluster, &format!("http://{ip}:81/"), 1)?[0].starts_with("echo-"));
    // The node port on each address of the node, and from another machine.
    assert!(get(&cluster, &format!("http://{NODE_IP}:30080/"), 1)?[0].starts_with("echo-"));
    let outside = cluster
        .network()
        .outside("curl")
        .args([
            "--silent",
            "--max-time",
            "10",
            &format!("http://{NODE_IP}:30080/"),
        ])
        .output()?;
    assert!(
        String::from_utf8_lossy(&outside.stdout).starts_with("echo-"),
        "{outside:?}"
    );
    // From a Pod: by the address that the cluster DNS gives for its name, the node port, and over UDP.
    let named = in_client(&cluster, &lookup("echo.default.svc.cluster.local"))?;
    assert_eq!(named.trim(), ip);
    for (address, port) in [(ip.as_str(), 80), (ip.as_str(), 81), (NODE_IP, 30080)] {
        let body = in_client(&cluster, &fetch(address, port))?;
        assert!(body.starts_with("echo-"), "{address}:{port}: {body}");
    }
    // UDP, from the host: each socket is a flow of its own and goes to one of the Pods.
    let pong = cluster_ip(&cluster, "pong")?;
    let script = format!(
        "for n in $(seq 40); do exec 3<>/dev/udp/{pong}/53; echo ping >&3; timeout 5 head -n 1 <&3; exec 3>&-; done"
    );
    let output = cluster.network().on_node("bash").args(["-c", &script]).output()?;
    let answers = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        answers
            .lines()
            .filter(|line| line.starts_with("pong pong-"))
            .count(),
        40,
        "{output:?}"
    );
    assert_eq!(
        answers.lines().collect::<std::collections::BTreeSet<_>>().len(),
        2,
        "{answers}"
    );
    Ok(())
}

#[test]
fn without_endpoints_a_connection_is_refused_at_once() -> Result<()> {
    let cluster = start()?;
    let ip = cluster_ip(&cluster, "nobody")?;
    let begin = Instant::now();
    let output = cluster
        .network()
        .on_node("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "10",
            &format!("http://{ip}/"),
        ])
        .output()?;
    // 7: could not connect; a timeout would be 28.
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let refused = in_client(&cluster, &format!("nc -w 10 {ip} 80 2>&1; true"))?;
    assert!(refused.contains("refused"), "{refused}");
    // Nobody waited for a timeout: SYN retries alone would take a second and more each.
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_its_service() -> Result<()> {
    let cluster = start()?;
    cluster.kubectl(&["scale", "deployment", "echo", "--replicas=1"])?;
    let name = eventually("one Pod", SOON, || {
        let pods = cluster.kubectl(&["get", "pods", "-l", "app=echo", "-o", "name"])?;
        ensure!(pods.lines().count() == 1, "{pods}");
        let endpoints = cluster.kubectl(&[
            "get",
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=echo",
            "-o",
            "jsonpath={.items[*].endpoints[*].addresses[0]}",
        ])?;
        ensure!(endpoints.split_whitespace().count() == 1, "{endpoints}");
        Ok(pods.trim().to_owned())
    })?;
    let itself = fetch(&cluster_ip(&cluster, "echo")?, 80);
    let body = cluster.kubectl(&["exec", &name, "--", "sh", "-c", &itself])?;
    assert_eq!(format!("pod/{}", body.trim()), name);
    Ok(())
}
