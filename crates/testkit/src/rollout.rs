//! All Pods behind a Service replaced one after the other, under load: what fails of it.
//!
//! Clients ask up to a hundred times a second, on new connections or on ones that they keep, through the Service's
//! address, through its node port from a machine outside, and by the name of a headless Service. The clients are curl:
//! they do what is usual and no more, such as to ask again if a connection that was kept turns out to be closed, and to
//! try the next address of a name.

use crate::cluster::{Cluster, eventually};
use crate::network::NODE_IP;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// Seconds after which the clients end, whatever else happens.
const AT_MOST: &str = "600";
const RATE: &str = "100/s";
const NAME_SERVER: &str = "10.96.0.10";
const NEW: &str = "--header 'Connection: close'";
const KEPT: &str = "";

/// The demo's database: at SIGTERM it ends what it has begun, and takes nothing more. No `preStop`.
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
---
apiVersion: v1
kind: Service
metadata: {name: web-headless}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{port: 28017}]
";

/// What became of one client's requests.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The client: how it came to the Pods, and on what connections.
    pub client: &'static str,
    /// Requests that were answered.
    pub answered: usize,
    /// What curl says of each that was not.
    pub failed: Vec<String>,
}

/// Makes a Deployment of three Pods in a cluster that has the demo's images, replaces them so many times under load,
/// and says what became of the requests.
pub fn replace_under_load(cluster: &Cluster, times: usize) -> Result<Vec<Outcome>> {
    cluster.apply(MANIFEST)?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/web",
        "--timeout=60s",
    ])?;
    let ip = cluster.kubectl(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    let directory = tempfile::tempdir_in(cluster.directory())?;
    std::fs::write(
        directory.path().join("resolv.conf"),
        format!("nameserver {NAME_SERVER}\n"),
    )?;
    let network = cluster.network();
    let cluster_ip = format!("http://{ip}/");
    let node_port = format!("http://{NODE_IP}:30080/");
    let headless = "http://web-headless.default.svc.cluster.local:28017/";
    let (here, outside) = (|| network.on_node("unshare"), || network.outside("unshare"));
    // How many requests one run of curl makes. It looks a name up once a run, and a run must be over before all Pods
    // that it heard of are replaced, also on a busy machine.
    let loads = [
        ("cluster-ip-new", here(), NEW, cluster_ip.as_str(), 100),
        ("cluster-ip-kept", here(), KEPT, &cluster_ip, 100),
        ("node-port-new", outside(), NEW, &node_port, 100),
        ("node-port-kept", outside(), KEPT, &node_port, 100),
        ("headless-new", here(), NEW, headless, 1),
        ("headless-kept", here(), KEPT, headless, 3),
    ]
    .into_iter()
    .map(|(client, command, options, url, requests)| {
        Load::start(command, directory.path(), client, options, url, requests)
    })
    .collect::<Result<Vec<_>>>()?;
    let replaced = (0..times).try_for_each(|turn| replace(cluster, turn));
    File::create(directory.path().join("stop"))?;
    let outcomes = loads.into_iter().map(Load::end).collect();
    replaced.and(outcomes)
}

/// Replaces all Pods and waits for the end of the old ones.
fn replace(cluster: &Cluster, turn: usize) -> Result<()> {
    let before = pods(cluster)?;
    // What `kubectl rollout restart` does, but it refuses to do it twice in a second.
    let patch = format!(r#"{{"spec":{{"template":{{"metadata":{{"annotations":{{"turn":"{turn}"}}}}}}}}}}"#);
    cluster.kubectl(&["patch", "deployment/web", "--patch", &patch])?;
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    eventually("the end of the old Pods", SOON, || {
        let now = pods(cluster)?;
        ensure!(now.len() == before.len() && now.is_disjoint(&before), "{now:?}");
        Ok(())
    })
}

fn pods(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let names = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"])?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// Requests one after the other until told to stop.
struct Load {
    client: &'static str,
    process: Child,
    results: PathBuf,
}

impl Load {
    fn start(
        mut unshare: Command,
        directory: &Path,
        client: &'static str,
        options: &str,
        url: &str,
        requests: u32,
    ) -> Result<Self> {
        let results = directory.join(client);
        // The cluster's DNS for this client alone. One line a request: what curl says about it, and how it was answered.
        let script = format!(
            "mount --bind {directory}/resolv.conf /etc/resolv.conf || exit 1
             until [ -e {directory}/stop ]; do
               curl --silent --max-time 10 --rate {RATE} {options} --output /dev/null \
                 --write-out '%{{http_code}} %{{exitcode}} %{{errormsg}}\\n' '{url}?[1-{requests}]'
               sleep 0.01
             done",
            directory = directory.display(),
        );
        let process = unshare
            .args(["--mount", "timeout", AT_MOST, "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(File::create(&results)?)
            .spawn()
            .context("cannot start a client (unshare: Debian package util-linux; curl)")?;
        Ok(Self {
            client,
            process,
            results,
        })
    }

    /// Waits for its end: the last requests are made.
    fn end(mut self) -> Result<Outcome> {
        self.process.wait()?;
        let text = std::fs::read_to_string(&self.results)?;
        let (answered, failed): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("200 0"));
        Ok(Outcome {
            client: self.client,
            answered: answered.len(),
            failed: failed.into_iter().map(str::to_owned).collect(),
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It has ended already unless something failed before that.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
