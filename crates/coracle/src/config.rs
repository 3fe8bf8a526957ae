//! What a cluster is made of: ports, ranges and directories, each a flag. `docs/reference.md` is generated from here.

use anyhow::{Context, Result, anyhow, bail};
use clap::{ArgAction, Args, ValueEnum};
use coracle_meta::cidr::indexed_ip;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Where a cluster lives unless it is told otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/coracle";

/// How the kernel is told of Services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// Flat maps of nf_tables: changes take microseconds
    #[default]
    Nftables,
    /// The chains of iptables that textbooks show, for reading along
    Iptables,
}

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
    /// Address of this node, one for each IP family [default: the address that the default route uses]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Addresses that the API server listens on [default: 127.0.0.1 (or ::1) and the node's addresses]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub bind_address: Vec<IpAddr>,
    /// Port of the API server
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub secure_port: u16,
    /// Port of the node's API (logs, exec, port-forward), on the node's address
    #[arg(long, value_name = "PORT", default_value_t = 10250)]
    pub kubelet_port: u16,
    /// Range of pod addresses; two for a dual-stack cluster, such as `10.244.0.0/16,fd00:10:244::/56`
    #[arg(long, value_name = "CIDR", value_delimiter = ',', default_value = "10.244.0.0/16", value_parser = range)]
    pub cluster_cidr: Vec<IpNet>,
    /// Range of Service addresses; two for a dual-stack cluster, the family of the first is that of Services by default
    #[arg(long, value_name = "CIDR", value_delimiter = ',', default_value = "10.96.0.0/12", value_parser = range)]
    pub service_cidr: Vec<IpNet>,
    /// Range of node ports
    #[arg(long, value_name = "FROM-TO", default_value = "30000-32767", value_parser = parse_port_range)]
    pub service_node_port_range: (u16, u16),
    /// Addresses of Services of type LoadBalancer, as IP or CIDR [default: the nodes' own addresses]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    pub load_balancer_pool: Vec<IpNet>,
    /// How the kernel is told of Services: `nftables`, or `iptables` for the chains of the textbooks
    #[arg(long, value_name = "MODE", default_value = "nftables")]
    #[serde(default)]
    pub proxy_mode: ProxyMode,
    /// Whether NetworkPolicies are enforced
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub network_policy: bool,
    /// Address of the cluster's DNS, in the Service range, one for each IP family [default: the tenth address of the
    /// range]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
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
    /// The cluster's IP families, the primary one first: true for IPv6.
    pub fn families(&self) -> impl Iterator<Item = bool> {
        self.service_cidr.iter().map(|range| range.addr().is_ipv6())
    }

    /// The addresses of the cluster's DNS, one for each family, the primary one first.
    pub fn dns_addresses(&self) -> Result<Vec<IpAddr>> {
        for address in &self.cluster_dns {
            if !self.service_cidr.iter().any(|range| range.contains(address)) {
                bail!(
                    "--cluster-dns {address} is not in the Service range {}",
                    list(&self.service_cidr)
                );
            }
        }
        let of = |range: &IpNet| match self.cluster_dns.iter().find(|ip| range.contains(*ip)) {
            Some(address) => Ok(*address),
            None => service_address(*range, 10),
        };
        self.service_cidr.iter().map(of).collect()
    }

    /// The address of the Service `kubernetes`: the first of the primary range.
    pub fn kubernetes_address(&self) -> Result<IpAddr> {
        let primary = self.service_cidr.first().context("--service-cidr is empty")?;
        service_address(*primary, 1)
    }

    /// Ranges must not overlap: an address is a pod's or a Service's. Each family has a range of both.
    pub fn check(&self) -> Result<()> {
        let (pods, services) = (&self.cluster_cidr, &self.service_cidr);
        check_pair("--cluster-cidr", pods)?;
        check_pair("--service-cidr", services)?;
        let families = |ranges: &[IpNet]| -> Vec<&str> {
            let ipv6 = ranges.iter().map(|range| range.addr().is_ipv6());
            ipv6.map(family).collect()
        };
        if families(pods) != families(services) {
            bail!(
                "--cluster-cidr is {} and --service-cidr {}: they must have the same IP families in the same order",
                families(pods).join(","),
                families(services).join(",")
            );
        }
        for (pods, services) in pods.iter().zip(services) {
            if overlap(pods, services) {
                bail!("--cluster-cidr {pods} and --service-cidr {services} overlap");
            }
            let longest = services.max_prefix_len() - 4;
            if services.prefix_len() > longest {
                bail!("--service-cidr {services} is too small: at most a /{longest}");
            }
        }
        for pool in &self.load_balancer_pool {
            for (flag, ranges) in [("--cluster-cidr", pods), ("--service-cidr", services)] {
                if let Some(range) = ranges.iter().find(|range| overlap(range, pool)) {
                    bail!("--load-balancer-pool {pool} and {flag} {range} overlap");
                }
            }
        }
        for (flag, addresses) in [("--node-ip", &self.node_ip), ("--cluster-dns", &self.cluster_dns)] {
            check_addresses(flag, addresses, services)?;
        }
        if self.secure_port == self.kubelet_port {
            bail!("--secure-port and --kubelet-port are both {}", self.secure_port);
        }
        self.dns_addresses().map(drop)
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
    pub fn bind_addresses(&self, node_ips: &[IpAddr]) -> Vec<IpAddr> {
        if !self.bind_address.is_empty() {
            return self.bind_address.clone();
        }
        let mut addresses = vec![self.loopback()];
        addresses.extend(node_ips);
        addresses
    }

    /// Where clients on this machine find the API server.
    pub fn api_address(&self) -> IpAddr {
        let bound = self.bind_address.as_slice();
        let any = bound.iter().any(IpAddr::is_unspecified);
        let loopback = bound.iter().find(|address| address.is_loopback());
        match (loopback, bound.first()) {
            (Some(address), _) => *address,
            (None, Some(address)) if !any => *address,
            _ => self.loopback(),
        }
    }

    /// Of the primary family.
    fn loopback(&self) -> IpAddr {
        if self.families().next() == Some(true) {
            Ipv6Addr::LOCALHOST.into()
        } else {
            Ipv4Addr::LOCALHOST.into()
        }
    }
}

/// As the API names it.
pub fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

fn list(ranges: &[IpNet]) -> String {
    let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    texts.join(",")
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn service_address(range: IpNet, index: u32) -> Result<IpAddr> {
    indexed_ip(range, index).ok_or_else(|| anyhow!("--service-cidr {range} is too small"))
}

/// One range, or one of each family. The texts are upstream's.
fn check_pair(flag: &str, ranges: &[IpNet]) -> Result<()> {
    match ranges {
        [] => bail!("{flag} must contain at least one valid cidr"),
        [_] => Ok(()),
        [one, other] if one.addr().is_ipv6() != other.addr().is_ipv6() => Ok(()),
        [_, _] => bail!("{flag}[0] and {flag}[1] must be of different IP family"),
        _ => bail!("{flag} must not contain more than two entries"),
    }
}

/// At most one address of a family, and only of families that the cluster has.
fn check_addresses(flag: &str, addresses: &[IpAddr], services: &[IpNet]) -> Result<()> {
    for (index, address) in addresses.iter().enumerate() {
        let is_same = |ipv6: bool| ipv6 == address.is_ipv6();
        let name = family(address.is_ipv6());
        if !services.iter().any(|range| is_same(range.addr().is_ipv6())) {
            bail!(
                "{flag} {address} is {name}, and --service-cidr {} is not",
                list(services)
            );
        }
        if addresses[..index].iter().any(|other| is_same(other.is_ipv6())) {
            bail!("{flag} has more than one {name} address");
        }
    }
    Ok(())
}

/// A range of addresses; bits behind its prefix do not count.
fn range(text: &str) -> Result<IpNet, String> {
    let range: IpNet = text
        .trim()
        .parse()
        .map_err(|_| "not a range such as 10.244.0.0/16 or fd00:10:244::/56".to_owned())?;
    Ok(range.trunc())
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
        let dns = config.dns_addresses().expect("dns");
        assert_eq!(dns, ["10.96.0.10".parse::<IpAddr>().expect("an address")]);
        assert_eq!(config.api_address(), Ipv4Addr::LOCALHOST);
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
    fn two_families_in_either_order() {
        for (pods, services, dns, first, api) in [
            (
                "10.244.0.0/16,fd00:10:244::/56",
                "10.96.0.0/12,fd00:10:96::/112",
                "10.96.0.10 fd00:10:96::a",
                "10.96.0.1",
                "127.0.0.1",
            ),
            (
                "fd00:10:244::/56,10.244.0.0/16",
                "fd00:10:96::/112,10.96.0.0/12",
                "fd00:10:96::a 10.96.0.10",
                "fd00:10:96::1",
                "::1",
            ),
            (
                "fd00:10:244::7/56",
                "fd00:10:96::/112",
                "fd00:10:96::a",
                "fd00:10:96::1",
                "::1",
            ),
        ] {
            let config = parse(&["--cluster-cidr", pods, "--service-cidr", services]).expect("valid");
            let found: Vec<String> = config
                .dns_addresses()
                .expect("dns")
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found.join(" "), dns);
            assert_eq!(config.kubernetes_address().expect("first").to_string(), first);
            assert_eq!(config.api_address().to_string(), api);
        }
    }

    #[test]
    fn clients_find_the_api_server_where_it_listens() {
        for (bound, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1,127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "127.0.0.1"),
        ] {
            let config = parse(&["--bind-address", bound]).expect("valid");
            assert_eq!(config.api_address().to_string(), expected, "{bound}");
        }
    }

    #[test]
    fn impossible_ranges_are_refused_with_the_flag_that_is_wrong() {
        for (args, message) in [
            (vec!["--cluster-cidr", "10.96.0.0/16"], "overlap"),
            (vec!["--cluster-cidr", "ten"], "not a range"),
            (vec!["--service-cidr", "10.96.0.0/29"], "at most a /28"),
            (
                vec!["--service-cidr", "10.96.0.0/16,10.97.0.0/16"],
                "--service-cidr[0] and --service-cidr[1] must be of different IP family",
            ),
            (
                vec!["--cluster-cidr", "10.96.0.0/16,fd00::/64,fd01::/64"],
                "--cluster-cidr must not contain more than two entries",
            ),
            (
                vec!["--service-cidr", "10.96.0.0/12,fd00:10:96::/112"],
                "--cluster-cidr is IPv4 and --service-cidr IPv4,IPv6: they must have the same IP families",
            ),
            (
                vec!["--node-ip", "192.0.2.1,2001:db8::1"],
                "--node-ip 2001:db8::1 is IPv6, and --service-cidr 10.96.0.0/12 is not",
            ),
            (
                vec!["--node-ip", "192.0.2.1,192.0.2.2"],
                "--node-ip has more than one IPv4 address",
            ),
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
