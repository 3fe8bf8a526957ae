//! What must hold before anything is touched: root, free ports, a kernel that can do it. Each failure is one line.

use crate::config::ClusterConfig;
use anyhow::{Context, Result, anyhow, bail};
use coracle_kernel::net::listener::listen_early;
use coracle_kernel::net::rtnetlink::Rtnetlink;
use std::fmt::Display;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// An address of TEST-NET-1 (RFC 5737): asking for the route to it sends nothing.
const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// What the checks found and took.
pub struct Preflight {
    /// Address of the node.
    pub node_ip: Ipv4Addr,
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
    let node_ip = node_ip(config)?;
    let node_name = config.node_name()?;
    let errors = coracle_meta::names::is_dns1123_subdomain(&node_name);
    if let Some(error) = errors.first() {
        bail!("node name {node_name:?} is not valid: {error}");
    }
    let api = config
        .bind_addresses(node_ip)
        .into_iter()
        .map(|address| listen(config, address, config.secure_port, "API server", "--secure-port"))
        .collect::<Result<_>>()?;
    let kubelet = listen(
        config,
        node_ip.into(),
        config.kubelet_port,
        "node API",
        "--kubelet-port",
    )?;
    require_kernel()?;
    Ok(Preflight {
        node_ip,
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

/// The node's address: the flag, else the one that the default route uses, else one that a network device has. A
/// machine without any network has the first pod address: the pod network puts it on `lo`.
pub fn node_ip(config: &ClusterConfig) -> Result<Ipv4Addr> {
    if let Some(address) = config.node_ip {
        return Ok(address);
    }
    match default_route_address().map_or_else(address_of_a_device, |address| Ok(Some(address)))? {
        Some(address) => Ok(address),
        None => pod_network_address(config),
    }
}

fn default_route_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ANYWHERE).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn address_of_a_device() -> Result<Option<Ipv4Addr>> {
    let addresses = Rtnetlink::open()
        .and_then(|mut network| network.addresses())
        .context("cannot read this machine's addresses")?;
    Ok(addresses.iter().find_map(|address| match address.ip {
        IpAddr::V4(ip) if address.universe && !ip.is_loopback() => Some(ip),
        _ => None,
    }))
}

fn pod_network_address(config: &ClusterConfig) -> Result<Ipv4Addr> {
    let first = super::node::pod_cidr(config)?.hosts().next();
    first.ok_or_else(|| anyhow!("--cluster-cidr {} is too small", config.cluster_cidr))
}

/// Addresses that the pod network brings, or brings up with `lo`, can be listened on before that.
fn listen(config: &ClusterConfig, address: IpAddr, port: u16, who: &str, flag: &str) -> Result<TcpListener> {
    let socket = SocketAddr::new(address, port);
    let listener = match address {
        IpAddr::V4(early) if early.is_loopback() || early == pod_network_address(config)? => {
            listen_early(SocketAddrV4::new(early, port))
        }
        _ => TcpListener::bind(socket),
    };
    listener.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow!("port {port} of {address} is in use: the {who} needs it, or another port with {flag}")
        }
        std::io::ErrorKind::AddrNotAvailable => anyhow!("{address} is not an address of this machine"),
        _ => anyhow!("the {who} cannot listen on {socket}: {error}"),
    })
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
