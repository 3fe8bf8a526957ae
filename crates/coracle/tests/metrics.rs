//! What Prometheus finds: the metrics of the Service proxy and of the cluster DNS, at upstream's ports under upstream's
//! names.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{Cluster, Finished, eventually};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(30);
const PROXY: &str = "http://127.0.0.1:10249";
const DNS: &str = "http://10.96.0.10:9153";
const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: db, labels: {app: db}}
spec: {containers: [{name: db, image: 'coracle.local/demo-db:1.0'}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{port: 27017}]}
";

#[test]
fn metrics_are_where_prometheus_looks_for_them() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    cluster.load_demo_images()?;
    cluster.apply(MANIFEST)?;
    eventually("the endpoint is counted", SOON, || {
        let page = get(&cluster, &format!("{PROXY}/metrics"))?;
        for name in [
            "kubeproxy_network_programming_duration_seconds",
            "kubeproxy_sync_proxy_rules_duration_seconds",
        ] {
            ensure!(value(&page, &format!("{name}_count{{ip_family=\"IPv4\"}}"))? > 0.0);
            let all = value(&page, &format!("{name}_bucket{{ip_family=\"IPv4\",le=\"+Inf\"}}"))?;
            ensure!(all > 0.0, "{page}");
        }
        for hop in ["watch", "queue", "commit"] {
            let name = format!("coracle_service_change_duration_seconds_count{{hop=\"{hop}\"}}");
            ensure!(value(&page, &name)? > 0.0, "{page}");
        }
        Ok(())
    })?;
    assert_eq!(get(&cluster, &format!("{PROXY}/proxyMode"))?, "nftables");

    let labels = "server=\"dns://10.96.0.10:53\",view=\"\",zone=\".\"";
    let asked = format!("coredns_dns_requests_total{{{labels},proto=\"udp\",family=\"1\",type=\"A\"}}");
    look_up(&cluster, "db.default.svc.cluster.local", true)?;
    let before = get(&cluster, &format!("{DNS}/metrics"))?;
    look_up(&cluster, "nobody.default.svc.cluster.local", false)?;
    let after = get(&cluster, &format!("{DNS}/metrics"))?;
    assert!(value(&before, &asked)? < value(&after, &asked)?, "{after}");
    let refused = asked
        .replace("requests", "responses")
        .replace('}', ",rcode=\"NXDOMAIN\"}");
    assert!(value(&after, &refused)? > 0.0, "{after}");
    let took = format!("coredns_dns_request_duration_seconds_count{{{labels}}}");
    assert!(value(&before, &took)? < value(&after, &took)?, "{after}");
    let zones = labels.replace("zone", "zones");
    value(&after, &format!("coredns_cache_misses_total{{{zones}}}"))?;
    for of in ["success", "denial"] {
        for name in ["coredns_cache_hits_total", "coredns_cache_entries"] {
            value(&after, &format!("{name}{{{zones},type=\"{of}\"}}"))?;
        }
    }
    Ok(())
}

/// The value of the line that begins with a name and its labels.
fn value(page: &str, name: &str) -> Result<f64> {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .with_context(|| format!("no {name} in\n{page}"))?;
    Ok(line.parse()?)
}

fn get(cluster: &Cluster, url: &str) -> Result<String> {
    let mut curl = cluster.network().on_node("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "10", url]);
    let done = Finished::from(curl.output()?);
    ensure!(done.ok, "{url}: {}", done.stderr);
    Ok(done.stdout)
}

/// Asks for the address of a name with the machine's own resolver, which is told to ask the cluster DNS.
fn look_up(cluster: &Cluster, name: &str, exists: bool) -> Result<()> {
    let resolv_conf = cluster.directory().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 10.96.0.10\n")?;
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec getent ahostsv4 {name}.",
        resolv_conf.display()
    );
    let mut command = cluster.network().on_node("unshare");
    let done = Finished::from(command.args(["--mount", "sh", "-c", &script]).output()?);
    ensure!(
        done.ok == exists,
        "{name}: {}{}, and exists: {exists}",
        done.stdout,
        done.stderr
    );
    Ok(())
}
