//! What must hold before anything is touched: root, free ports, a kernel that can do it. Each failure is one line.

use crate::config::{ClusterConfig, family};
use anyhow::{Context, Result, anyhow, bail};
use coracle_kernel::net::listener::listen_early;
use coracle_kernel::net::rtnetlink::Rtnetlink;
use coracle_kernel::net::sysctl;
use coracle_meta::cidr::indexed_ip;
use ipnet::IpNet;
use std::fmt::Display;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Addresses for documentation (RFC 5737, RFC 3849): asking for the route to them sends nothing.
const ANYWHERE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ANYWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const DISCARD_PORT: u16 = 9;

/// What the checks found and took.
pub struct Preflight {
    /// Addresses of the node, one for each of the cluster's families, the primary one first.
    pub node_ips: Vec<IpAddr>,
    /// Name of the node.
    pub node_name: String,
    /// The API server's listeners.
    pub api: Vec<TcpListener>,
    /// The node API's listener.
    pub kubelet: TcpListener,
}

/// Checks everything that can be checked without leaving a trace.
pub fn check(config: &ClusterConfig) -> Result<Preflight> {
    config.check()?;
    require_root()?;
    require_ipv6(config)?;
    let node_ips = node_ips(config)?;
    let node_name = config.node_name()?;
    let errors = coracle_meta::names::is_dns1123_subdomain(&node_name);
    if let Some(error) = errors.first() {
        bail!("node name {node_name:?} is not valid: {error}");
    }
    let api = config
        .bind_addresses(&node_ips)
        .into_iter()
        .map(|address| listen(config, address, config.secure_port, "API server", "--secure-port"))
        .collect::<Result<_>>()?;
    let kubelet = listen(
        config,
        *node_ips.first().context("the node has no address")?,
        config.kubelet_port,
        "node API",
        "--kubelet-port",
    )?;
    require_kernel()?;
    Ok(Preflight {
        node_ips,
        node_name,
        api,
        kubelet,
    })
}

fn require_root() -> Result<()> {
    // The owner of /proc/self is this process's effective user.
    let uid = fs::metadata("/proc/self").context("/proc is not mounted")?.uid();
    if uid == 0 {
        Ok(())
    } else {
        bail!("a cluster needs root (network, mounts, cgroups): try sudo")
    }
}

/// The node's addresses, one for each of the cluster's families, the primary one first: the flag, else the one that the
/// default route uses, else one that a network device has. A machine without any network has the first pod address:
/// the pod network puts it on `lo`.
pub fn node_ips(config: &ClusterConfig) -> Result<Vec<IpAddr>> {
    let of = |ipv6: bool| -> Result<IpAddr> {
        let told = config.node_ip.iter().find(|ip| ip.is_ipv6() == ipv6);
        if let Some(address) = told.copied().or_else(|| default_route_address(ipv6)) {
            return Ok(address);
        }
        match address_of_a_device(config, ipv6)? {
            Some(address) => Ok(address),
            None => pod_network_addresses(config)?
                .into_iter()
                .find(|address| address.is_ipv6() == ipv6)
                .with_context(|| format!("--cluster-cidr has no {} address", family(ipv6))),
        }
    };
    config.families().map(of).collect()
}

fn default_route_address(ipv6: bool) -> Option<IpAddr> {
    let (any, anywhere): (IpAddr, IpAddr) = if ipv6 {
        (Ipv6Addr::UNSPECIFIED.into(), ANYWHERE_V6.into())
    } else {
        (Ipv4Addr::UNSPECIFIED.into(), ANYWHERE_V4.into())
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((anywhere, DISCARD_PORT)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    // A router is found by link-local addresses alone; a node is not.
    let link_local = matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
    (!link_local).then_some(address)
}

/// Not one of those that an earlier daemon put on `lo`.
fn address_of_a_device(config: &ClusterConfig, ipv6: bool) -> Result<Option<IpAddr>> {
    let addresses = Rtnetlink::open()
        .and_then(|mut network| network.addresses())
        .context("cannot read this machine's addresses")?;
    let own = |ip: &IpAddr| config.cluster_cidr.iter().any(|range| range.contains(ip));
    let mut found = addresses
        .iter()
        .filter(|address| address.universe && address.ip.is_ipv6() == ipv6)
        .map(|address| address.ip);
    Ok(found.find(|ip| !ip.is_loopback() && !own(ip)))
}

fn pod_network_addresses(config: &ClusterConfig) -> Result<Vec<IpAddr>> {
    let first =
        |range: IpNet| indexed_ip(range, 1).with_context(|| format!("--cluster-cidr {range} is too small"));
    super::node::pod_cidrs(config)?.into_iter().map(first).collect()
}

/// Addresses that the pod network brings, or brings up with `lo`, can be listened on before that.
fn listen(config: &ClusterConfig, address: IpAddr, port: u16, who: &str, flag: &str) -> Result<TcpListener> {
    let socket = SocketAddr::new(address, port);
    let listener = if address.is_loopback() || pod_network_addresses(config)?.contains(&address) {
        listen_early(socket)
    } else {
        TcpListener::bind(socket)
    };
    listener.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow!("port {port} of {address} is in use: the {who} needs it, or another port with {flag}")
        }
        std::io::ErrorKind::AddrNotAvailable => anyhow!("{address} is not an address of this machine"),
        _ => anyhow!("the {who} cannot listen on {socket}: {error}"),
    })
}

/// A kernel without IPv6, or with IPv6 switched off on the devices that are yet to come, cannot run an IPv6 cluster.
fn require_ipv6(config: &ClusterConfig) -> Result<()> {
    if !config.families().any(|ipv6| ipv6) {
        return Ok(());
    }
    for device in ["lo", "default"] {
        let name = format!("ipv6/conf/{device}/disable_ipv6");
        match sysctl::get(&name).as_deref() {
            None => bail!("this kernel lacks IPv6, which --cluster-cidr and --service-cidr ask for"),
            Some("0") => {}
            Some(_) => bail!(
                "IPv6 is switched off on this machine, and --cluster-cidr and --service-cidr ask for it: \
                 sysctl -w net.ipv6.conf.{device}.disable_ipv6=0"
            ),
        }
    }
    Ok(())
}

fn require_kernel() -> Result<()> {
    for (path, feature) in [
        ("/proc/self/ns/net", "network namespaces (CONFIG_NET_NS)"),
        ("/proc/self/ns/pid", "PID namespaces (CONFIG_PID_NS)"),
        ("/proc/sys/net/ipv4/ip_forward", "IPv4"),
        ("/sys/fs/cgroup", "cgroups"),
    ] {
        if !Path::new(path).exists() {
            bail!("this kernel lacks {feature}: {path} does not exist");
        }
    }
    let filesystems = fs::read_to_string("/proc/filesystems").context("cannot read /proc/filesystems")?;
    // As a module it loads itself at the first mount, where modules may be loaded.
    let module = fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|release| Path::new("/lib/modules").join(release.trim()).exists())
        .unwrap_or(false);
    if !filesystems
        .lines()
        .any(|line| line.trim() == "nodev\toverlay" || line.ends_with("\toverlay"))
        && !module
    {
        bail!("this kernel lacks overlayfs (CONFIG_OVERLAY_FS)");
    }
    Ok(())
}

/// The file in the data directory that its daemon has locked, with the daemon's process id.
pub const LOCK_FILE: &str = "daemon.pid";

/// Somebody else works on the directory.
pub fn already_up(data_dir: &Path, pid: impl Display) -> anyhow::Error {
    anyhow!(
        "a cluster is already up in {} (process {pid})",
        data_dir.display()
    )
}

/// The lock of a data directory: at most one daemon works on it. Released when the process ends, however it does.
pub struct DirectoryLock(#[allow(dead_code, reason = "held, not read")] File);

/// Takes the directory, or says who has it.
pub fn lock(data_dir: &Path) -> Result<DirectoryLock> {
    let path = data_dir.join(LOCK_FILE);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(already_up(data_dir, pid.trim()));
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(DirectoryLock(file))
}

/// The daemon that holds the directory, if one does.
pub fn running(data_dir: &Path) -> Option<u32> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(data_dir.join(LOCK_FILE))
        .ok()?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).ok()?;
            pid.trim().parse().ok()
        }
        _ => None,
    }
}

/// Waits until nobody holds the directory any more.
pub fn wait_until_free(data_dir: &Path) -> Result<()> {
    let path = data_dir.join(LOCK_FILE);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))
}

/// Sends a signal to the daemon. No error if it has ended by itself in between.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .context("cannot run kill")?;
    if !status.success() && Path::new("/proc").join(pid.to_string()).exists() {
        bail!("cannot stop the daemon (process {pid})");
    }
    Ok(())
}
