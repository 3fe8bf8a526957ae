//! A whole cluster in this process: control plane, controllers, scheduler, node.

mod control_plane;
mod controllers;
mod metadata_controllers;
mod node;
pub mod preflight;
pub mod progress;
pub mod record;
mod service_trace;
mod service_warnings;
pub mod stop;
mod tasks;
pub mod teardown;
mod tls;
pub mod traces;

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
use preflight::Preflight;
use progress::Progress;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use stop::StopSignals;
use tasks::Tasks;
use traces::Traces;

/// How long clients may take to read the end of what they watch when the cluster stops.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A running cluster.
pub struct Cluster {
    config: ClusterConfig,
    node_ips: Vec<IpAddr>,
    client: Client,
    control_plane: ControlPlane,
    proxy: Arc<ServiceProxy>,
    names: Arc<cluster_dns::Timeline>,
    tasks: Tasks,
    /// The API server's listeners: they end after all that write through them.
    servers: Tasks,
}

impl Cluster {
    /// Starts a cluster and returns when its node is Ready and its DNS answers. When it fails, also because it is asked
    /// to stop before that, the traces say what it has made.
    pub async fn start(
        config: ClusterConfig,
        traces: &mut Traces,
        signals: &mut StopSignals,
    ) -> Result<Self> {
        // Cancel-safe: a start that is dropped ends its parts.
        tokio::select! {
            started = Self::start_parts(config, traces) => started,
            () = signals.requested() => bail!("stopped before it was ready"),
        }
    }

    async fn start_parts(config: ClusterConfig, traces: &mut Traces) -> Result<Self> {
        let mut progress = Progress::start();
        let Preflight {
            node_ips,
            node_name,
            api,
            kubelet,
        } = preflight::check(&config)?;
        traces.take_directories()?;
        progress.done(&format!(
            "this machine can run a cluster: node {node_name}, {}",
            list(&node_ips)
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
            service_cidrs: &config.service_cidr,
            node_ports: config.service_node_port_range,
            node_ips: &node_ips,
            node_name: &node_name,
            service_account_key: &service_account_key,
        };
        let (mut tasks, mut servers) = (Tasks::default(), Tasks::default());
        let mut control_plane = ControlPlane::open(&options, &authority, config.secure_port)?;
        for server in control_plane.serve(api, &authority, &options)? {
            servers.spawn("API server", server);
        }
        control_plane.bootstrap(&options, &authority).await?;
        tasks.spawn("IP addresses", control_plane.keep_ip_addresses()?);
        tasks.spawn(
            "default objects",
            control_plane.keep_objects(&options, &authority)?,
        );
        progress.done(&format!("API server on port {}", config.secure_port));

        controllers::start(&config, &authority, &control_plane, &mut tasks);
        progress.done("controllers and scheduler");

        let rules = node::packet_rules(&config, &node_name)?;
        traces.in_kernel();
        if let Some(before) = record::read(&config.data_dir) {
            node::withdraw(&before, &config)?;
        }
        // Not before: a start that is killed leaves what the record of the one before tells of.
        record::write(&config)?;
        let node = (node_name.as_str(), node_ips.as_slice());
        let NodeParts {
            proxy,
            names,
            dns_synced,
            ready,
        } = node::start(
            &config,
            node,
            rules,
            kubelet,
            &authority,
            &control_plane,
            &mut tasks,
        )
        .await?;
        progress.done("pod network and containers");
        let client = control_plane.client(control_plane::admin("kubernetes-admin"));
        ready.await.context("the node ended")?;
        progress.done("node Ready");
        proxy.in_force().await?;
        progress.done("packet rules for Services");
        dns_synced.await.context("the cluster DNS ended")?;
        progress.done(&format!("cluster DNS on {}", list(&config.dns_addresses()?)));
        write_kubeconfig(&config, &authority)?;
        progress.ready(&format!("kubectl --context {} get nodes", kubeconfig::CONTEXT));
        Ok(Self {
            config,
            node_ips,
            client,
            control_plane,
            proxy,
            names,
            tasks,
            servers,
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

    /// Address of the node, of the primary family.
    pub fn node_ip(&self) -> Result<IpAddr> {
        self.node_ips.first().copied().context("the node has no address")
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
    pub async fn until_stopped(&mut self, signals: &mut StopSignals) -> Result<()> {
        // Cancel-safe: signals and the end of tasks lose nothing when another branch wins.
        tokio::select! {
            () = signals.requested() => Ok(()),
            name = self.tasks.first_end() => bail!("{name} ended"),
            name = self.servers.first_end() => bail!("{name} ended"),
        }
    }

    /// Stops the daemon's own parts. Containers run on, and so do the rules that lead to them.
    pub async fn stop(mut self) {
        self.tasks.stop().await;
        self.control_plane.stop();
        // Whoever has not read it all by then is cut off.
        let _ = tokio::time::timeout(LAST_WORDS, self.servers.all_ended()).await;
        self.servers.stop().await;
        self.control_plane.close();
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(" and ")
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
    let server = format!(
        "https://{}",
        SocketAddr::new(config.api_address(), config.secure_port)
    );
    kubeconfig::merge(&file, &server, &authority.certificate, &admin)
}
