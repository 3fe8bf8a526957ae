//! A whole cluster in this process: control plane, controllers, scheduler, node.

mod control_plane;
mod controllers;
mod metadata_controllers;
mod node;
pub mod preflight;
pub mod progress;
mod tasks;
pub mod teardown;
mod tls;

use crate::certificates::{self, Authority, Leaf};
use crate::config::ClusterConfig;
use crate::kubeconfig;
use anyhow::{Context, Result, bail};
use control_plane::{ControlPlane, Options};
use coracle_client::Client;
use coracle_dataplane::ServiceKey;
use coracle_node::cluster_dns;
use coracle_node::service_proxy::ServiceProxy;
use coracle_reconcile::Key;
use jiff::Timestamp;
use node::NodeParts;
use preflight::{DirectoryLock, Preflight};
use progress::Progress;
use std::fs::DirBuilder;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use tasks::Tasks;
use tokio::signal::unix::{SignalKind, signal};

/// A running cluster.
pub struct Cluster {
    config: ClusterConfig,
    node_ip: Ipv4Addr,
    client: Client,
    control_plane: ControlPlane,
    proxy: Arc<ServiceProxy>,
    names: Arc<cluster_dns::Timeline>,
    tasks: Tasks,
    /// Released last, when nothing works on the directory any more.
    _lock: DirectoryLock,
}

impl Cluster {
    /// Starts a cluster and returns when its node is Ready and its DNS answers.
    pub async fn start(config: ClusterConfig) -> Result<Self> {
        let mut progress = Progress::start();
        let Preflight {
            node_ip,
            node_name,
            api,
            kubelet,
        } = preflight::check(&config)?;
        make_directory(&config.data_dir)?;
        let lock = preflight::lock(&config.data_dir)?;
        make_directory(&config.run_dir)?;
        progress.done(&format!(
            "this machine can run a cluster: node {node_name}, {node_ip}"
        ));

        let pki = config.data_dir.join("pki");
        let authority = Authority::load_or_create(&pki)?;
        let service_account_key = certificates::service_account_key(&pki)?;
        progress.done("certificates");

        let store = config.data_dir.join("store.redb");
        let options = Options {
            store: &store,
            domain: &config.cluster_domain,
            kubernetes_ip: config.kubernetes_address()?,
            service_cidr: config.service_cidr,
            node_ports: config.service_node_port_range,
            node_ip,
            node_name: &node_name,
            service_account_key: &service_account_key,
        };
        let mut tasks = Tasks::default();
        let mut control_plane = ControlPlane::open(&options, &authority, config.secure_port)?;
        let servers = control_plane.serve(api, &authority, &options)?;
        servers
            .into_iter()
            .for_each(|server| tasks.spawn("API server", server));
        control_plane.bootstrap(&options, &authority).await?;
        tasks.spawn("IP addresses", control_plane.keep_ip_addresses()?);
        progress.done(&format!("API server on port {}", config.secure_port));

        controllers::start(&config, &authority, &control_plane, &mut tasks);
        progress.done("controllers and scheduler");

        let node = (node_name.as_str(), node_ip);
        let NodeParts {
            proxy,
            names,
            dns_synced,
            ready,
        } = node::start(&config, node, kubelet, &authority, &control_plane, &mut tasks).await?;
        progress.done("pod network, packet rules, containers");
        let client = control_plane.client(control_plane::admin("kubernetes-admin"));
        ready.await.context("the node ended")?;
        progress.done("node Ready");
        dns_synced.await.context("the cluster DNS ended")?;
        progress.done(&format!("cluster DNS on {}", config.dns_address()?));
        write_kubeconfig(&config, &authority)?;
        progress.ready(&format!("kubectl --context {} get nodes", kubeconfig::CONTEXT));
        Ok(Self {
            config,
            node_ip,
            client,
            control_plane,
            proxy,
            names,
            tasks,
            _lock: lock,
        })
    }

    /// A client that may do everything.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What the cluster was started with.
    pub fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// Address of the node.
    pub fn node_ip(&self) -> Ipv4Addr {
        self.node_ip
    }

    /// What the node has done for a Service so far, and when.
    pub fn timeline(&self, namespace: &str, name: &str) -> Vec<(Timestamp, &'static str)> {
        let proxy = self
            .proxy
            .timeline()
            .of(&ServiceKey::new(namespace, name))
            .unwrap_or_default();
        let steps = [
            (
                proxy.endpoints_seen,
                "endpoint controller: the EndpointSlice lists the Pods that the selector finds",
            ),
            (
                proxy.endpoints_programmed,
                "service proxy: the kernel forwards to one of these Pods, chosen at random",
            ),
            (
                self.names.of(&Key::new(namespace, name)),
                "cluster DNS: the Service's name has its record",
            ),
        ];
        steps
            .into_iter()
            .filter_map(|(at, what)| Some((at?, what)))
            .collect()
    }

    /// Waits for Ctrl-C or SIGTERM. The end of a part that must not end is an error.
    pub async fn until_stopped(&mut self) -> Result<()> {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        // Cancel-safe: signals and the end of tasks lose nothing when another branch wins.
        tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            name = self.tasks.first_end() => bail!("{name} ended"),
        }
    }

    /// Stops the daemon's own parts. Containers run on, and so do the rules that lead to them.
    pub async fn stop(mut self) {
        self.tasks.stop().await;
        self.control_plane.close();
    }
}

fn make_directory(path: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

fn write_kubeconfig(config: &ClusterConfig, authority: &Authority) -> Result<()> {
    let Some(file) = config.kubeconfig.clone().or_else(kubeconfig::default_path) else {
        bail!("no home directory for a kubeconfig: give --kubeconfig");
    };
    let admin = authority.issue(
        "kubernetes-admin",
        &Leaf::Client {
            groups: &["system:masters"],
        },
    )?;
    let server = format!("https://127.0.0.1:{}", config.secure_port);
    kubeconfig::merge(&file, &server, &authority.certificate, &admin)
}
