//! Every Pod has the token of its ServiceAccount, also one that comes at the same moment as its namespace.

use anyhow::{Result, ensure};
use coracle_testkit::{BUSYBOX, Cluster};

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const NAMESPACES: u32 = 8;

#[test]
fn a_pod_as_old_as_its_namespace_has_its_token() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    cluster.load_busybox()?;
    let manifest: String = (0..NAMESPACES)
        .map(|number| {
            format!(
                "---
apiVersion: v1
kind: Namespace
metadata: {{name: new-{number}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: first, namespace: new-{number}}}
spec:
  containers:
  - name: shell
    image: {BUSYBOX}
    command: [sleep, '3600']
"
            )
        })
        .collect();
    let done = cluster.kubectl_stdin(&["create", "-f", "-"], &manifest)?;
    ensure!(done.ok, "{done:?}");
    for number in 0..NAMESPACES {
        let namespace = format!("--namespace=new-{number}");
        cluster.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "--timeout=10s",
            "pod/first",
            &namespace,
        ])?;
        let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        let token = cluster.kubectl(&["exec", "first", &namespace, "--", "cat", token])?;
        ensure!(token.split('.').count() == 3, "a JSON web token: {token}");
        let events = cluster.kubectl(&["get", "events", &namespace])?;
        ensure!(!events.contains("Failed"), "{events}");
    }
    Ok(())
}
