//! What a cluster is made of: ports, ranges and directories, each a flag. `docs/reference.md` is generated from here.

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// Where a cluster lives unless it is told otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/coracle";

/// The flags of a cluster on this machine.
#[derive(Args, Debug, Clone, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Where the cluster lives: store, certificates, images, pods
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR, value_parser = directory)]
    pub data_dir: PathBuf,
    /// Sockets, network namespaces and other things that a reboot ends
    #[arg(long, value_name = "DIR", default_value = "/run/coracle", value_parser = directory)]
    pub run_dir: PathBuf,
    /// Kubeconfig to merge the context `coracle` into [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of this node [default: the address that the default route uses]
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<Ipv4Addr>,
    /// Addresses that the API server listens on [default: 127.0.0.1 and the node's address]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub bind_address: Vec<IpAddr>,
    /// Port of the API server
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub secure_port: u16,
    /// Port of the node's API (logs, exec, port-forward), on the node's address
    #[arg(long, value_name = "PORT", default_value_t = 10250)]
    pub kubelet_port: u16,
    /// Range of pod addresses
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub cluster_cidr: Ipv4Net,
    /// Range of Service addresses
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12")]
    pub service_cidr: Ipv4Net,
    /// Range of node ports
    #[arg(long, value_name = "FROM-TO", default_value = "30000-32767", value_parser = parse_port_range)]
    pub service_node_port_range: (u16, u16),
    /// Addresses of Services of type LoadBalancer, as IP or CIDR [default: the nodes' own addresses]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    pub load_balancer_pool: Vec<IpNet>,
    /// Address of the cluster's DNS, in the Service range [default: the tenth address of it]
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Option<Ipv4Addr>,
    /// DNS domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Most pods that this node runs
    #[arg(long, value_name = "N", default_value_t = 110)]
    pub max_pods: u32,
    /// `builtin`, or the path of an OCI runtime such as runc
    #[arg(long, value_name = "RUNTIME", default_value = "builtin")]
    pub oci_runtime: String,
    /// Registries that are spoken to without TLS, as HOST[:PORT] (loopback addresses always may)
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub insecure_registry: Vec<String>,
}

impl ClusterConfig {
    /// The address of the cluster's DNS.
    pub fn dns_address(&self) -> Result<Ipv4Addr> {
        match self.cluster_dns {
            Some(address) if self.service_cidr.contains(&address) => Ok(address),
            Some(address) => bail!(
                "--cluster-dns {address} is not in the Service range {}",
                self.service_cidr
            ),
            None => self.service_address(10),
        }
    }

    /// The address of the Service `kubernetes`: the first of the range.
    pub fn kubernetes_address(&self) -> Result<Ipv4Addr> {
        self.service_address(1)
    }

    fn service_address(&self, index: usize) -> Result<Ipv4Addr> {
        self.service_cidr
            .hosts()
            .nth(index - 1)
            .ok_or_else(|| anyhow!("--service-cidr {} is too small", self.service_cidr))
    }

    /// Ranges must not overlap: an address is a pod's or a Service's.
    pub fn check(&self) -> Result<()> {
        let (pods, services) = (self.cluster_cidr, self.service_cidr);
        if pods.contains(&services) || services.contains(&pods) {
            bail!("--cluster-cidr {pods} and --service-cidr {services} overlap");
        }
        if services.prefix_len() > 28 {
            bail!("--service-cidr {services} is too small: at most a /28");
        }
        for pool in &self.load_balancer_pool {
            for (flag, range) in [("--cluster-cidr", pods), ("--service-cidr", services)] {
                let range = IpNet::V4(range);
                if range.contains(pool) || pool.contains(&range) {
                    bail!("--load-balancer-pool {pool} and {flag} {range} overlap");
                }
            }
        }
        if self.secure_port == self.kubelet_port {
            bail!("--secure-port and --kubelet-port are both {}", self.secure_port);
        }
        self.dns_address().map(drop)
    }

    /// The node's name: the flag, else the host name in lower case, as the kubelet has it.
    pub fn node_name(&self) -> Result<String> {
        match &self.node_name {
            Some(name) => Ok(name.clone()),
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")
                .map(|name| name.trim().to_lowercase())
                .context("cannot read the host name; give --node-name"),
        }
    }

    /// The addresses that the API server listens on.
    pub fn bind_addresses(&self, node_ip: Ipv4Addr) -> Vec<IpAddr> {
        if self.bind_address.is_empty() {
            vec![Ipv4Addr::LOCALHOST.into(), node_ip.into()]
        } else {
            self.bind_address.clone()
        }
    }
}

/// A directory, absolute: parts of the cluster that run with another working directory are told of it.
pub fn directory(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| format!("{text}: {error}"))
}

/// A range of addresses, or one.
fn network(text: &str) -> Result<IpNet, String> {
    let one = text.parse::<IpAddr>().map(IpNet::from);
    one.or_else(|_| text.parse())
        .map_err(|_| "not an address such as 192.0.2.1 or a range such as 192.0.2.0/28".to_owned())
}

fn parse_port_range(text: &str) -> Result<(u16, u16), String> {
    let parsed = text
        .split_once('-')
        .and_then(|(from, to)| Some((from.parse::<u16>().ok()?, to.parse::<u16>().ok()?)));
    match parsed {
        Some((from, to)) if from > 0 && from <= to => Ok((from, to)),
        _ => Err("not a range of ports such as 30000-32767".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: ClusterConfig,
    }

    fn parse(args: &[&str]) -> Result<ClusterConfig> {
        let cli = Cli::try_parse_from(std::iter::once("coracle").chain(args.iter().copied()))?;
        cli.config.check()?;
        Ok(cli.config)
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let config = parse(&[]).expect("defaults are valid");
        assert_eq!(config.dns_address().expect("dns").to_string(), "10.96.0.10");
        assert_eq!(
            config.kubernetes_address().expect("first").to_string(),
            "10.96.0.1"
        );
        assert_eq!(config.service_node_port_range, (30000, 32767));
    }

    #[test]
    fn directories_are_absolute() {
        let config = parse(&["--data-dir", "here", "--run-dir", "/there"]).expect("valid");
        let here = std::env::current_dir().expect("a working directory").join("here");
        assert_eq!((config.data_dir, config.run_dir), (here, "/there".into()));
    }

    #[test]
    fn a_pool_is_made_of_addresses_and_ranges() {
        let config = parse(&["--load-balancer-pool", "192.0.2.1,198.51.100.0/28"]).expect("valid");
        let pool: Vec<String> = config
            .load_balancer_pool
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(pool, ["192.0.2.1/32", "198.51.100.0/28"]);
    }

    #[test]
    fn impossible_ranges_are_refused_with_the_flag_that_is_wrong() {
        for (args, message) in [
            (vec!["--cluster-cidr", "10.96.0.0/16"], "overlap"),
            (vec!["--cluster-dns", "10.0.0.1"], "--cluster-dns"),
            (
                vec!["--service-node-port-range", "9-1"],
                "service-node-port-range",
            ),
            (vec!["--kubelet-port", "6443"], "--kubelet-port"),
            (
                vec!["--load-balancer-pool", "10.244.7.0/28"],
                "--load-balancer-pool",
            ),
            (vec!["--load-balancer-pool", "192.0.2.0-9"], "not an address"),
        ] {
            let error = parse(&args).expect_err("refused").to_string();
            assert!(error.contains(message), "{args:?}: {error}");
        }
    }
}
