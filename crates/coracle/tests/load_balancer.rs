//! Services of type LoadBalancer without a cloud: an address from the nodes or from a pool, reached from outside.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{BUSYBOX, Cluster, NODE_IP, eventually};
use std::process::{Command, Output};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

fn backend() -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: echo}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: echo}}}}
  template:
    metadata: {{labels: {{app: echo}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: echo
        image: {BUSYBOX}
        command: [sh, -c, 'hostname > /www/index.html; exec httpd -f -p 8080 -h /www']
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"
    )
}

fn service(name: &str, port: u16, more: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: LoadBalancer
  selector: {{app: echo}}
  ports: [{{port: {port}, targetPort: 8080}}]
{more}"
    )
}

fn start(flags: &[&str]) -> Result<Cluster> {
    let cluster = Cluster::start_with(BINARY, flags)?;
    cluster.load_busybox()?;
    cluster.apply(&backend())?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/echo",
        "--timeout=60s",
    ])?;
    Ok(cluster)
}

/// What `kubectl get service` shows under EXTERNAL-IP.
fn external_ip(cluster: &Cluster, name: &str) -> Result<String> {
    let line = cluster.kubectl(&["get", "service", name, "--no-headers"])?;
    let column = line.split_whitespace().nth(3);
    column.map(str::to_owned).with_context(|| line.clone())
}

fn has_external_ip(cluster: &Cluster, name: &str, expected: &str) -> Result<()> {
    eventually(&format!("{name} at {expected}"), SOON, || {
        let ip = external_ip(cluster, name)?;
        ensure!(ip == expected, "{ip}");
        Ok(())
    })
}

fn curl(mut command: Command, url: &str) -> Result<Output> {
    command.args(["--silent", "--show-error", "--max-time", "5", url]);
    command.output().context("cannot run curl")
}

/// A GET from another machine.
fn from_outside(cluster: &Cluster, url: &str) -> Result<Output> {
    curl(cluster.network().outside("curl"), url)
}

fn answers(output: &Output) -> bool {
    output.status.success() && output.stdout.starts_with(b"echo-")
}

/// Answers when the data plane has heard of it.
fn is_reached(cluster: &Cluster, url: &str) -> Result<()> {
    eventually(&format!("an answer from {url}"), SOON, || {
        let output = from_outside(cluster, url)?;
        ensure!(answers(&output), "{output:?}");
        Ok(())
    })
}

#[test]
fn services_share_the_nodes_address_and_a_clash_says_who_has_the_port() -> Result<()> {
    let cluster = start(&[])?;
    cluster.apply(&service("first", 80, ""))?;
    has_external_ip(&cluster, "first", NODE_IP)?;
    is_reached(&cluster, &format!("http://{NODE_IP}/"))?;
    // From the node itself, too.
    let host = curl(cluster.network().on_node("curl"), &format!("http://{NODE_IP}/"))?;
    assert!(answers(&host), "{host:?}");

    // Another port of the same address.
    cluster.apply(&service("second", 81, ""))?;
    has_external_ip(&cluster, "second", NODE_IP)?;
    is_reached(&cluster, &format!("http://{NODE_IP}:81/"))?;

    // The same port: it waits, and says for whom; nor is the API server's port given away.
    cluster.apply(&(service("third", 80, "") + &service("api", 6443, "")))?;
    for (name, holder) in [("third", "Service default/first"), ("api", "the API server")] {
        eventually(&format!("the reason why {name} waits"), SOON, || {
            let described = cluster.kubectl(&["describe", "service", name])?;
            ensure!(
                described.contains("SyncLoadBalancerFailed") && described.contains(holder),
                "{described}"
            );
            Ok(())
        })?;
        assert_eq!(external_ip(&cluster, name)?, "<pending>");
    }

    // A Service that is no load balancer any more gives the port to who waits for it.
    cluster.kubectl(&[
        "patch",
        "service",
        "first",
        "-p",
        r#"{"spec":{"type":"ClusterIP"}}"#,
    ])?;
    has_external_ip(&cluster, "third", NODE_IP)?;
    assert_eq!(external_ip(&cluster, "first")?, "<none>");
    is_reached(&cluster, &format!("http://{NODE_IP}/"))?;

    // With the last one that has a port the port is closed.
    cluster.kubectl(&["delete", "service", "third"])?;
    eventually("a refusal", SOON, || {
        let output = from_outside(&cluster, &format!("http://{NODE_IP}/"))?;
        ensure!(output.status.code() == Some(7), "{output:?}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn addresses_come_from_a_pool_and_a_wish_is_granted() -> Result<()> {
    let cluster = start(&["--load-balancer-pool", "192.0.2.0/28"])?;
    // What a router would know.
    let route = cluster
        .network()
        .outside("ip")
        .args(["route", "add", "192.0.2.0/28", "via", NODE_IP])
        .output()?;
    ensure!(route.status.success(), "{route:?}");
    cluster.apply(
        &(service("one", 80, "")
            + &service("two", 80, "")
            + &service("wish", 80, "  loadBalancerIP: 192.0.2.9\n")
            + &service("foreign", 80, "  loadBalancerClass: example.com/other\n")),
    )?;
    has_external_ip(&cluster, "wish", "192.0.2.9")?;
    for name in ["one", "two"] {
        eventually(&format!("an address of {name}"), SOON, || {
            let ip = external_ip(&cluster, name)?;
            ensure!(ip == "192.0.2.1" || ip == "192.0.2.2", "{ip}");
            Ok(())
        })?;
    }
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.9"] {
        is_reached(&cluster, &format!("http://{address}/"))?;
    }
    // Another class is another one's business.
    assert_eq!(external_ip(&cluster, "foreign")?, "<pending>");
    Ok(())
}
