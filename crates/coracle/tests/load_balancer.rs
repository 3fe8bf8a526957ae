//! Services of type LoadBalancer without a cloud: an address from the nodes or from a pool, reached from outside.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{BUSYBOX, Cluster, NODE_IP, eventually, web_servers};
use std::process::{Command, Output};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

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
    cluster.apply(&web_servers("echo", 2))?;
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

#[test]
fn a_pool_on_the_nodes_link_needs_no_route_and_is_given_back() -> Result<()> {
    let cluster = start(&["--load-balancer-pool", "172.30.0.128/28"])?;
    cluster.apply(&service("web", 80, ""))?;
    has_external_ip(&cluster, "web", "172.30.0.129")?;
    is_reached(&cluster, "http://172.30.0.129/")?;
    // Only the Service's port is there.
    let output = from_outside(&cluster, "http://172.30.0.129:6443/")?;
    assert_eq!(output.status.code(), Some(7), "{output:?}");

    let down = cluster.command("down").output()?;
    ensure!(down.status.success(), "{down:?}");
    for arguments in [
        ["neigh", "show", "proxy"].as_slice(),
        &["route", "show", "172.30.0.129"],
    ] {
        let left = cluster.network().on_node("ip").args(arguments).output()?;
        assert!(left.status.success() && left.stdout.is_empty(), "{left:?}");
    }
    Ok(())
}

#[test]
fn source_ranges_health_checks_and_host_ports() -> Result<()> {
    let cluster = start(&[])?;
    let ranges = |ranges: &str| {
        service(
            "web",
            80,
            &format!("  externalTrafficPolicy: Local\n  loadBalancerSourceRanges: [{ranges}]\n"),
        )
    };
    cluster.apply(&ranges("172.30.0.1/32"))?;
    has_external_ip(&cluster, "web", NODE_IP)?;
    is_reached(&cluster, &format!("http://{NODE_IP}/"))?;

    // What a load balancer in front of several nodes would ask each of them.
    let path = "jsonpath={.spec.healthCheckNodePort}";
    let port = cluster.kubectl(&["get", "service", "web", "-o", path])?;
    let health = format!("http://{NODE_IP}:{port}/healthz");
    let told = |status: &str, endpoints: usize| {
        eventually(&format!("{status} from {health}"), SOON, || {
            let mut command = cluster.network().outside("curl");
            command.args(["--write-out", "\n%{http_code}"]);
            let output = curl(command, &health)?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let (body, code) = text.rsplit_once('\n').context("no status")?;
            let body: serde_json::Value = serde_json::from_str(body)?;
            ensure!(code == status && body["localEndpoints"] == endpoints, "{text}");
            assert_eq!(body["service"]["name"], "web");
            Ok(())
        })
    };
    told("200", 2)?;
    cluster.kubectl(&["scale", "deployment", "echo", "--replicas=0"])?;
    told("503", 0)?;
    cluster.kubectl(&["scale", "deployment", "echo", "--replicas=1"])?;
    told("200", 1)?;

    // Another client's range: dropped, not refused; the node port is not restricted.
    cluster.apply(&ranges("172.30.0.8/29"))?;
    eventually("no answer", SOON, || {
        let output = from_outside(&cluster, &format!("http://{NODE_IP}/"))?;
        ensure!(output.status.code() == Some(28), "{output:?}");
        Ok(())
    })?;
    let path = "jsonpath={.spec.ports[0].nodePort}";
    let port = cluster.kubectl(&["get", "service", "web", "-o", path])?;
    is_reached(&cluster, &format!("http://{NODE_IP}:{port}/"))?;

    // A port of the node for one Pod; another Pod that wants it has to wait.
    let pod = |name: &str| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: echo
    image: {BUSYBOX}
    command: [sh, -c, 'echo echo-host-port > /www/index.html; exec httpd -f -p 8080 -h /www']
    ports: [{{containerPort: 8080, hostPort: 8081}}]
"
        )
    };
    cluster.apply(&pod("one"))?;
    is_reached(&cluster, &format!("http://{NODE_IP}:8081/"))?;
    cluster.apply(&pod("two"))?;
    eventually("the reason why the second Pod waits", SOON, || {
        let described = cluster.kubectl(&["describe", "pod", "two"])?;
        ensure!(described.contains("free ports"), "{described}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "pod", "one", "two"])?;
    eventually("a refusal", SOON, || {
        let output = from_outside(&cluster, &format!("http://{NODE_IP}:8081/"))?;
        ensure!(output.status.code() == Some(7), "{output:?}");
        Ok(())
    })?;
    Ok(())
}
