//! ServiceCIDR and IPAddress objects: what they say of the cluster, and what comes back when somebody takes it away.

use anyhow::{Result, ensure};
use coracle_testkit::{Cluster, eventually};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

#[test]
fn ranges_are_ready_and_addresses_are_repaired() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "servicecidr/kubernetes",
        "--timeout=60s",
    ])?;
    cluster.apply(
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: more}\nspec: {cidrs: [192.168.7.0/24]}\n",
    )?;
    let reason = r#"jsonpath={.status.conditions[?(@.type=="Ready")].reason}"#;
    eventually("a range that is not served says so", SOON, || {
        let reason = cluster.kubectl(&["get", "servicecidr", "more", "-o", reason])?;
        ensure!(reason == "NotServed", "{reason}");
        Ok(())
    })?;
    // Nothing needs it.
    cluster.kubectl(&["delete", "servicecidr", "more", "--timeout=30s"])?;
    // The other has addresses of Services.
    cluster.kubectl(&["delete", "servicecidr", "kubernetes", "--wait=false"])?;
    eventually("a range that is needed stays", SOON, || {
        let reason = cluster.kubectl(&["get", "servicecidr", "kubernetes", "-o", reason])?;
        ensure!(reason == "Terminating", "{reason}");
        Ok(())
    })?;

    cluster.kubectl(&["create", "service", "clusterip", "web", "--tcp=80"])?;
    let address = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    eventually("its object", SOON, || {
        cluster.kubectl(&["get", "ipaddress", &address])
    })?;
    cluster.kubectl(&["delete", "ipaddress", &address])?;
    eventually("its object comes back", SOON, || {
        let parent = "jsonpath={.spec.parentRef.resource}/{.spec.parentRef.name}";
        let parent = cluster.kubectl(&["get", "ipaddress", &address, "-o", parent])?;
        ensure!(parent == "services/web", "{parent}");
        Ok(())
    })?;
    eventually("an event says so", SOON, || {
        let described = cluster.kubectl(&["describe", "service", "web"])?;
        ensure!(described.contains("ClusterIPNotAllocated"), "{described}");
        Ok(())
    })?;
    Ok(())
}
