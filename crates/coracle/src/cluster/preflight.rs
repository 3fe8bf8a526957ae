//! What must hold before anything is touched: root, free ports, a kernel that can do it. Each failure is one line.

use crate::config::ClusterConfig;
use anyhow::{Context, Result, anyhow, bail};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
        .map(|address| listen(address, config.secure_port, "API server", "--secure-port"))
        .collect::<Result<_>>()?;
    let kubelet = listen(node_ip.into(), config.kubelet_port, "node API", "--kubelet-port")?;
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

/// The node's address: the flag, else the one that the default route uses.
pub fn node_ip(config: &ClusterConfig) -> Result<Ipv4Addr> {
    if let Some(address) = config.node_ip {
        return Ok(address);
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a UDP socket")?;
    let local = socket
        .connect(ANYWHERE)
        .and_then(|()| socket.local_addr())
        .map_err(|_| anyhow!("this machine has no default route: give the node's address with --node-ip"))?;
    match local.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => bail!("the default route is IPv6 only: give an IPv4 address with --node-ip"),
    }
}

fn listen(address: IpAddr, port: u16, who: &str, flag: &str) -> Result<TcpListener> {
    let address = SocketAddr::new(address, port);
    TcpListener::bind(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow!(
                "port {port} of {} is in use: the {who} needs it, or another port with {flag}",
                address.ip()
            )
        }
        std::io::ErrorKind::AddrNotAvailable => {
            anyhow!("{} is not an address of this machine", address.ip())
        }
        _ => anyhow!("the {who} cannot listen on {address}: {error}"),
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

/// The lock of a data directory: at most one daemon works on it. Released when the process ends, however it does.
pub struct DirectoryLock(#[allow(dead_code, reason = "held, not read")] File);

/// Takes the directory, or says who has it.
pub fn lock(data_dir: &Path) -> Result<DirectoryLock> {
    let path = data_dir.join("daemon.pid");
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
            bail!(
                "a cluster is already up in {} (process {})",
                data_dir.display(),
                pid.trim()
            );
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
        .open(data_dir.join("daemon.pid"))
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
    let path = data_dir.join("daemon.pid");
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))
}
