//! No request is lost when all Pods behind a Service are replaced under load: no `preStop`, no sleep in the Pod.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{Cluster, NODE_IP, eventually};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);
const NODE_PORT: u16 = 30080;
const ROLLOUTS: usize = 3;

/// The demo's database: it ends at SIGTERM with what it has begun, and takes nothing more.
const MANIFEST: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: coracle.local/demo-db:1.0
        readinessProbe: {httpGet: {port: 28017}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 28017, nodePort: 30080}]
";

/// Requests one after the other, each on a connection of its own, until told to stop.
struct Load {
    process: Child,
    results: PathBuf,
}

impl Load {
    fn start(mut shell: Command, directory: &Path, name: &str, url: &str) -> Result<Self> {
        let (results, stop) = (directory.join(name), directory.join("stop"));
        // One line a request: what curl says about it, and how it was answered.
        let script = format!(
            "while [ ! -e {stop} ]; do \
             curl --silent --max-time 10 --header 'Connection: close' --output /dev/null \
             --write-out '%{{http_code}} %{{exitcode}} %{{errormsg}}\\n' '{url}?[1-50]'; done",
            stop = stop.display()
        );
        let process = shell
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(File::create(&results)?)
            .spawn()
            .context("cannot start the load")?;
        Ok(Self { process, results })
    }

    /// Waits for its end; the number of answers, and everything that is none.
    fn end(mut self) -> Result<(usize, Vec<String>)> {
        self.process.wait()?;
        let text = std::fs::read_to_string(&self.results)?;
        let (good, bad): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("200 0"));
        Ok((good.len(), bad.into_iter().map(str::to_owned).collect()))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It has ended already unless the test failed before that.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn pods(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let names = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"])?;
    Ok(names.lines().map(str::to_owned).collect())
}

#[test]
fn a_rolling_replacement_under_load_loses_no_request() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    cluster.load_demo_images()?;
    cluster.apply(MANIFEST)?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/web",
        "--timeout=60s",
    ])?;
    let ip = cluster.kubectl(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    let directory = tempfile::tempdir()?;
    let network = cluster.network();
    let cluster_ip = format!("http://{ip}/");
    let node_port = format!("http://{NODE_IP}:{NODE_PORT}/");
    let loads = [
        ("cluster-ip", network.on_node("bash"), &cluster_ip),
        ("node-port", network.outside("bash"), &node_port),
    ]
    .into_iter()
    .map(|(name, shell, url)| Ok((name, Load::start(shell, directory.path(), name, url)?)))
    .collect::<Result<Vec<_>>>()?;

    let replaced = (0..ROLLOUTS).try_for_each(|_| {
        let before = pods(&cluster)?;
        cluster.kubectl(&["rollout", "restart", "deployment/web"])?;
        cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
        eventually("the end of the old Pods", SOON, || {
            let now = pods(&cluster)?;
            ensure!(now.len() == 3 && now.is_disjoint(&before), "{now:?}");
            Ok(())
        })
    });
    File::create(directory.path().join("stop"))?;
    for (name, load) in loads {
        let (answered, failed) = load.end()?;
        assert!(
            failed.is_empty(),
            "{name}: {} of {} requests failed: {failed:?}",
            failed.len(),
            failed.len() + answered
        );
        // So few would not be constant load.
        assert!(answered > 100, "{name}: {answered} requests");
        eprintln!("{name}: {answered} requests, none failed");
    }
    replaced
}
