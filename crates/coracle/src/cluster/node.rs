//! The node of this process: pod network, packet rules, cluster DNS, containers, and the agent that drives them.

use super::control_plane::ControlPlane;
use super::service_trace::Tracer;
use super::tasks::Tasks;
use super::tls;
use crate::certificates::{Authority, Leaf};
use crate::commands::image::store_in;
use crate::config::{ClusterConfig, ProxyMode};
use anyhow::{Context, Result};
use coracle_apiserver::UserInfo;
use coracle_dataplane::Config as ProxyConfig;
use coracle_dns::{Forwarder, Server as DnsServer, SharedSearchPaths, SharedZone, Zone};
use coracle_kernel::mount::detach_below;
use coracle_node::pod_network::forwarding::{self, Forwarding};
use coracle_node::pod_network::{self, PodNetwork, PodNetworkConfig};
use coracle_node::service_proxy::{self, ServiceProxy};
use coracle_node::{NodeConfig, Parts, Ways, cluster_dns, serve_texts};
use coracle_oci::{OciRuntime, PullConfig, Runtime, RuntimeConfig};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Where, in the run directory, the names of the Pods' network namespaces are.
pub const NETNS: &str = "netns";
/// Where, in the data directory, the node has its Pods' volumes and logs.
const NODE: &str = "node";
const DNS_PORT: u16 = 53;
/// Where CoreDNS has its metrics, at the address of the cluster DNS.
const DNS_METRICS_PORT: u16 = 9153;
/// Where kube-proxy has its metrics, for this machine alone.
const PROXY_METRICS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 10_249);
/// What a node of upstream's gets out of the cluster's range.
const NODE_PREFIX_V4: u8 = 24;
const NODE_PREFIX_V6: u8 = 64;
/// How long a Pod that ends is kept from SIGTERM while the data plane takes it out.
const DRAIN: Duration = Duration::from_secs(2);
/// The resolvers behind systemd-resolved's stub: asking the stub from a Pod would go round in a circle.
const RESOLV_CONFS: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];

/// The parts of a node that others look at.
pub struct NodeParts {
    /// The packet rules, and when they were made.
    pub proxy: Arc<ServiceProxy>,
    /// When Services had their DNS records.
    pub names: Arc<cluster_dns::Timeline>,
    /// Ready when the DNS zone holds everything that exists.
    pub dns_synced: oneshot::Receiver<()>,
    /// Ready when the Node object says so and the Pods of the node are known.
    pub ready: oneshot::Receiver<()>,
}

/// Takes the packet rules of this machine. They belong to one process at a time, so who has them may work on
/// addresses and routes as well.
pub fn packet_rules(config: &ClusterConfig, name: &str) -> Result<Arc<ServiceProxy>> {
    Ok(Arc::new(ServiceProxy::start(proxy_config(config, name)?)?))
}

/// Takes out of the kernel what an earlier start has made for ranges that this one does without. Pods keep their
/// addresses.
pub fn withdraw(before: &ClusterConfig, config: &ClusterConfig) -> Result<()> {
    pod_network::withdraw(&network_config(before)?, &network_config(config)?)?;
    Ok(())
}

/// Starts the node.
pub async fn start(
    config: &ClusterConfig,
    (name, ips): (&str, &[IpAddr]),
    proxy: Arc<ServiceProxy>,
    listener: TcpListener,
    authority: &Authority,
    control_plane: &ControlPlane,
    tasks: &mut Tasks,
) -> Result<NodeParts> {
    let network = Arc::new(PodNetwork::new(network_config(config)?)?);
    let forwarding = Forwarding::start(config.cluster_cidr.clone())?;
    tasks.spawn("firewalls of others", async move {
        let _lives_as_long = forwarding;
        std::future::pending().await
    });
    let client = control_plane.client(identity(name));

    let zone: SharedZone = Arc::new(Zone::new(&config.cluster_domain)?.into());
    let forwarder = Forwarder::following(resolv_conf());
    let search_paths = SharedSearchPaths::default();
    let dns_addresses = config.dns_addresses()?;
    let mut dns = DnsServer::new(zone.clone(), forwarder.clone());
    for address in &dns_addresses {
        dns.listen(SocketAddr::new(*address, DNS_PORT)).await?;
    }
    let endings = Arc::new(cluster_dns::Endings::new(zone));
    let (synced, dns_synced) = oneshot::channel();
    let names = Arc::new(cluster_dns::Timeline::default());
    let page = dns.metrics();
    for address in &dns_addresses {
        let (page, address) = (page.clone(), SocketAddr::new(*address, DNS_METRICS_PORT));
        let text = move |path: &str| {
            let mut text = String::new();
            page(&mut text);
            (path == "/metrics").then_some(text)
        };
        tasks.spawn("metrics of the cluster DNS", serve_texts(address, text));
    }
    tasks.spawn("cluster DNS", dns.with_search_paths(search_paths.clone()).run());
    let dns_client = control_plane.client(UserInfo::new("system:kube-dns", &["system:masters"]));
    tasks.spawn(
        "cluster DNS zone",
        cluster_dns::run(dns_client.clone(), endings.clone(), names.clone(), synced),
    );
    tasks.spawn(
        "cluster DNS resolvers",
        cluster_dns::follow_config(dns_client.clone(), forwarder),
    );
    let proxy_client = control_plane.client(UserInfo::new("system:kube-proxy", &[]));
    let policy_client = control_plane.client(UserInfo::new("coracle:network-policy", &[]));
    let store = control_plane.store().clone();
    let written: service_proxy::Written = Arc::new(move |resource, revision| {
        let stored = format!("{}/{}", resource.group, resource.resource);
        store.committed(&stored, revision)
    });
    let clients = service_proxy::Clients {
        services: proxy_client,
        policies: config.network_policy.then_some(policy_client),
        node: client.clone(),
        written: Some(written),
    };
    let (following, node_name) = (proxy.clone(), name.to_owned());
    tasks.spawn("service proxy", async move {
        service_proxy::follow(clients, &node_name, &following).await
    });
    let metrics = proxy.metrics().clone();
    let mode = match config.proxy_mode {
        ProxyMode::Nftables => "nftables",
        ProxyMode::Iptables => "iptables",
    };
    let text = move |path: &str| match path {
        "/metrics" => {
            let mut text = String::new();
            metrics.write(&mut text);
            Some(text)
        }
        "/healthz" => Some("ok".to_owned()),
        "/proxyMode" => Some(mode.to_owned()),
        _ => None,
    };
    tasks.spawn(
        "metrics of the service proxy",
        serve_texts(PROXY_METRICS.into(), text),
    );
    let asked = proxy.clone();
    tasks.spawn("health checks of load balancers", async move {
        service_proxy::serve_health_checks(&asked).await
    });

    let images = store_in(&config.data_dir)?;
    let runtime = Runtime::open(runtime_config(config)?).await?;
    let pair = authority.issue(
        &format!("system:node:{name}"),
        &Leaf::Server {
            names: &[name.to_owned()],
            addresses: ips,
        },
    )?;
    let node_config = NodeConfig {
        name: name.to_owned(),
        addresses: ips.to_vec(),
        pod_cidrs: pod_cidrs(config)?,
        labels: BTreeMap::new(),
        // One server that answers for both families; resolvers would ask a second one only if it did not.
        cluster_dns: dns_addresses.into_iter().take(1).collect(),
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf: resolv_conf(),
        data_dir: config.data_dir.join(NODE),
        max_pods: config.max_pods,
        drain: DRAIN,
        pull: PullConfig {
            plain_http: config.insecure_registry.clone(),
        },
        tls: Arc::new(tls::server(
            &pair,
            &authority.certificate,
            tls::ClientCertificates::Required,
        )?),
    };
    tasks.spawn(
        "cluster DNS clients",
        cluster_dns::follow_clients(dns_client, &node_config, search_paths),
    );
    listener.set_nonblocking(true)?;
    let parts = Parts {
        client,
        runtime,
        images,
        network,
        data_plane: Arc::new(Ways(vec![proxy.clone(), endings])),
        service_tracer: Arc::new(Tracer {
            node: name.to_owned(),
            store: control_plane.store().clone(),
            proxy: proxy.clone(),
            names: names.clone(),
        }),
        listener: tokio::net::TcpListener::from_std(listener)?,
    };
    let (now_ready, ready) = oneshot::channel();
    tasks.spawn("node", async move {
        // Nobody may be waiting any more.
        let told = coracle_node::run(node_config, parts, || {
            let _ = now_ready.send(());
        })
        .await;
        if let Err(error) = told {
            tracing::error!(error = &error as &dyn std::error::Error, "the node ended");
        }
    });
    Ok(NodeParts {
        proxy,
        names,
        dns_synced,
        ready,
    })
}

/// Ends every Pod of this node and takes its network out of the kernel.
pub async fn tear_down(config: &ClusterConfig) -> Result<()> {
    // First: fails while another process's cluster uses this machine's network.
    let proxy = ServiceProxy::start(proxy_config(config, &config.node_name()?)?)?;
    if config.data_dir.exists() {
        Runtime::open(runtime_config(config)?).await?.delete().await?;
        let node = config.data_dir.join(NODE);
        detach_below(&node).with_context(|| format!("cannot unmount what is below {}", node.display()))?;
    }
    forwarding::withdraw().context("cannot take back the rules in firewalls of others")?;
    PodNetwork::new(network_config(config)?)?.tear_down()?;
    proxy.delete()?;
    Ok(())
}

fn identity(name: &str) -> UserInfo {
    UserInfo::new(format!("system:node:{name}"), &["system:nodes"])
}

fn network_config(config: &ClusterConfig) -> Result<PodNetworkConfig> {
    Ok(PodNetworkConfig {
        directory: config.run_dir.join(NETNS),
        pod_cidrs: pod_cidrs(config)?,
        service_cidrs: config.service_cidr.clone(),
        local_addresses: config.dns_addresses()?,
        mtu: None,
    })
}

fn proxy_config(config: &ClusterConfig, node_name: &str) -> Result<ProxyConfig> {
    Ok(ProxyConfig {
        node_name: node_name.to_owned(),
        zone: None,
        pod_cidrs: config.cluster_cidr.clone(),
        service_cidrs: config.service_cidr.clone(),
        local_addresses: config.dns_addresses()?.into_iter().collect(),
        by_iptables: config.proxy_mode == ProxyMode::Iptables,
        load_balancer_pool: config.load_balancer_pool.clone(),
    })
}

/// The first node has the first part of each of the cluster's ranges.
pub fn pod_cidrs(config: &ClusterConfig) -> Result<Vec<IpNet>> {
    let first = |range: &IpNet| {
        let prefix = if range.addr().is_ipv6() {
            NODE_PREFIX_V6
        } else {
            NODE_PREFIX_V4
        };
        IpNet::new(range.network(), prefix.max(range.prefix_len()))
            .with_context(|| format!("--cluster-cidr {range} cannot be divided"))
    };
    config.cluster_cidr.iter().map(first).collect()
}

fn runtime_config(config: &ClusterConfig) -> Result<RuntimeConfig> {
    let own = std::env::current_exe().context("cannot find this program")?;
    Ok(RuntimeConfig {
        root: config.data_dir.join("containers"),
        images: store_in(&config.data_dir)?,
        shim_command: vec![
            own.to_string_lossy().into_owned(),
            "internal".into(),
            "shim".into(),
        ],
        oci_runtime: match config.oci_runtime.as_str() {
            "builtin" => OciRuntime::Builtin,
            path => OciRuntime::Binary(PathBuf::from(path)),
        },
        cgroup_root: cgroup_root(&config.data_dir),
    })
}

/// Each cluster has a cgroup of its own: two on one machine must not take each other's.
fn cgroup_root(data_dir: &Path) -> PathBuf {
    if data_dir == Path::new(crate::config::DEFAULT_DATA_DIR) {
        return PathBuf::from("coracle");
    }
    let text = data_dir.to_string_lossy();
    PathBuf::from(format!("coracle-{}", text.trim_matches('/').replace('/', "-")))
}

fn resolv_conf() -> PathBuf {
    let found = RESOLV_CONFS.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from(RESOLV_CONFS[1]))
}
