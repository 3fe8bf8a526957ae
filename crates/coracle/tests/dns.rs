//! What a Pod is told by the cluster DNS: names of the cluster, names of the world by one question, resolvers by
//! ConfigMap.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{BUSYBOX, Cluster, OUTSIDE_IP, eventually};
use std::process::{Child, Stdio};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

/// A resolver on the machine outside. It has an address for every name under `example.com` and `corp.example`, one
/// for each port that it listens on, and writes down what it is asked.
const RESOLVER: &str = r#"
import socket, sys, threading
def serve(port, address):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", port))
    while True:
        query, client = s.recvfrom(4096)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        name, end = ".".join(labels), at + 5
        kind = int.from_bytes(query[at + 1:at + 3], "big")
        print(port, name, flush=True)
        known = name.endswith(("example.com", "corp.example"))
        answers = 1 if known and kind == 1 else 0
        code = 0 if known else 3
        reply = query[:2] + bytes([0x81, 0x80 | code, 0, 1, 0, answers, 0, 1 - answers, 0, 0]) + query[12:end]
        if answers:
            reply += bytes([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4]) + socket.inet_aton(address)
        else:
            reply += bytes([0, 0, 6, 0, 1, 0, 0, 1, 0, 0, 22, 0, 0]) + (60).to_bytes(4, "big") * 5
        s.sendto(reply, client)
threading.Thread(target=serve, args=(5353, "192.0.2.53"), daemon=True).start()
serve(53, "192.0.2.1")
"#;

fn manifest() -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: kube-dns, namespace: kube-system}}
data:
  stubDomains: '{{\"corp.example\": [\"{OUTSIDE_IP}:5353\"]}}'
  upstreamNameservers: '[\"{OUTSIDE_IP}\"]'
---
apiVersion: v1
kind: Service
metadata: {{name: pets}}
spec:
  clusterIP: None
  selector: {{app: client}}
  ports: [{{name: web, port: 80}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: client}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: far}}
spec: {{type: ExternalName, externalName: www.example.com}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client, labels: {{app: client}}}}
spec:
  hostname: rex
  subdomain: pets
  terminationGracePeriodSeconds: 0
  containers: [{{name: sh, image: {BUSYBOX}, command: [sleep, '3600']}}]
"
    )
}

struct Resolver(Child);

impl Resolver {
    fn start(cluster: &Cluster) -> Result<Self> {
        let log = std::fs::File::create(cluster.directory().join("resolver"))?;
        let mut command = cluster.network().outside("python3");
        command.args(["-c", RESOLVER]).stdin(Stdio::null()).stdout(log);
        Ok(Self(command.spawn().context("cannot run python3")?))
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // It is gone already, or it is now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the resolver was asked, as `PORT NAME` lines; what it does not know is left out.
fn asked(cluster: &Cluster) -> Result<Vec<String>> {
    let log = std::fs::read_to_string(cluster.directory().join("resolver"))?;
    let known = log
        .lines()
        .filter(|line| line.contains(".example") || line.contains(" example"));
    Ok(known.map(str::to_owned).collect())
}

fn in_client(cluster: &Cluster, script: &str) -> Result<String> {
    cluster.kubectl(&["exec", "client", "--", "sh", "-c", script])
}

/// All that nslookup prints about the name itself, in a line.
fn lookup(cluster: &Cluster, kind: &str, name: &str) -> Result<String> {
    let script = format!("nslookup -type={kind} {name} 2>&1 | tail -n +4 | tr '\\n' ' '");
    in_client(cluster, &script)
}

#[test]
fn a_pod_finds_the_cluster_and_the_world() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    let _resolver = Resolver::start(&cluster)?;
    cluster.load_busybox()?;
    cluster.apply(&manifest())?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"])?;
    let pod_ip = cluster.kubectl(&["get", "pod", "client", "-o", "jsonpath={.status.podIP}"])?;
    let web_ip = cluster.kubectl(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"])?;

    // The cluster's own.
    let dashed = pod_ip.replace('.', "-");
    for (name, address) in [
        ("web.default.svc.cluster.local".to_owned(), &web_ip),
        ("rex.pets.default.svc.cluster.local".to_owned(), &pod_ip),
        (format!("{dashed}.default.pod.cluster.local"), &pod_ip),
    ] {
        eventually("a name", SOON, || {
            let said = lookup(&cluster, "a", &name)?;
            ensure!(said.contains(&format!("Address: {address} ")), "{name}: {said}");
            Ok(())
        })?;
    }
    let srv = lookup(&cluster, "srv", "_web._tcp.pets.default.svc.cluster.local")?;
    assert!(srv.contains("rex.pets.default.svc.cluster.local"), "{srv}");
    let reversed: Vec<&str> = pod_ip.split('.').rev().collect();
    let ptr = lookup(&cluster, "ptr", &format!("{}.in-addr.arpa", reversed.join(".")))?;
    assert!(ptr.contains("rex.pets.default.svc.cluster.local"), "{ptr}");
    assert!(lookup(&cluster, "a", "nobody.default.svc.cluster.local")?.contains("NXDOMAIN"));

    // The world: by the resolvers of the ConfigMap, the stub domain by its own, an alias followed.
    for (name, address) in [
        ("a.example.com", "192.0.2.1"),
        ("db.corp.example", "192.0.2.53"),
        ("far.default.svc.cluster.local", "192.0.2.1"),
    ] {
        eventually("a name", SOON, || {
            let said = lookup(&cluster, "a", name)?;
            ensure!(said.contains(&format!("Address: {address} ")), "{name}: {said}");
            Ok(())
        })?;
    }

    // What a client with `ndots:5` asks first has the answer already, and is asked of a resolver once.
    for _ in 0..3 {
        let said = lookup(&cluster, "a", "b.example.com.default.svc.cluster.local")?;
        assert!(said.contains("canonical name = b.example.com"), "{said}");
        assert!(said.contains("Address: 192.0.2.1 "), "{said}");
    }
    let times = asked(&cluster)?
        .iter()
        .filter(|line| *line == "53 b.example.com")
        .count();
    assert_eq!(times, 1, "{:?}", asked(&cluster)?);
    // The namespace of the Pod decides, not the name that it asks for.
    let other = lookup(&cluster, "a", "b.example.com.kube-system.svc.cluster.local")?;
    assert!(other.contains("NXDOMAIN"), "{other}");

    // Without the ConfigMap the host's resolvers are asked, and the stub domain is gone.
    cluster.kubectl(&["delete", "configmap", "kube-dns", "-n", "kube-system"])?;
    let before = asked(&cluster)?.len();
    lookup(&cluster, "a", "new.corp.example")?;
    assert_eq!(asked(&cluster)?.len(), before);
    Ok(())
}
