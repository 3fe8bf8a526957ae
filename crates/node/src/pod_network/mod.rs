//! The network of the pods on this node: each has a network namespace and one point-to-point link to the node.
//!
//! There is no bridge and no proxy ARP. The pod's `eth0` has a /32 address and a default route to 169.254.1.1, whose
//! Ethernet address it is told for good; the node has a /32 route over the other half of the pair. So each packet is
//! routed by the node, and a pod reaches itself through its Service without special kernel settings. The namespaces
//! and links outlive the daemon. Upstream leaves this to CNI plugins.
//!
//! The node itself has the first address of its pod range, on `lo`: what the node sends to a pod or a Service comes
//! from there, whatever addresses the machine has, gets or loses, even none.

mod address_pool;

pub use address_pool::AddressPool;

use coracle_kernel::net::rtnetlink::{Link, Mac, Route, Rtnetlink, Scope, Veth};
use coracle_kernel::net::{self, netns, sysctl};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Next hop of every pod.
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Ethernet address of the node on every pod's link: the links are private, so one address is enough.
const NODE_MAC: Mac = [0xee; 6];
/// The device inside a pod.
const POD_DEVICE: &str = "eth0";
/// A busy kernel may take a while.
const OPERATIONAL_WITHIN: Duration = Duration::from_secs(10);
/// What the names of the node's halves begin with.
const LINK_PREFIX: &str = "cor";
/// Where no default route tells.
const DEFAULT_MTU: u32 = 1500;
/// Largest packet a pair of devices takes.
const VETH_MAX_MTU: u32 = 65_535;
const EVERYWHERE: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What the pod network needs to know.
#[derive(Debug, Clone)]
pub struct PodNetworkConfig {
    /// Directory of the files that name the pods' namespaces, one for each pod, named by its uid.
    pub directory: PathBuf,
    /// The pod addresses of this node. The first host address is the node's own.
    pub pod_cidr: Ipv4Net,
    /// The addresses of Services, routed so that the node's own connections reach the packet rules.
    pub service_cidr: Ipv4Net,
    /// Addresses served by the node itself, such as the one of the cluster DNS.
    pub local_addresses: Vec<Ipv4Addr>,
    /// Largest packet, in bytes; without it that of the default route's device, or 1500.
    pub mtu: Option<u32>,
}

/// A pod's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInterface {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The file that names its network namespace.
    pub netns_path: PathBuf,
    /// The node's half of the link.
    pub host_device: String,
}

/// What failed, and for whom.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's own addresses and routes.
    #[error("prepare the node's pod network")]
    Prepare(#[source] net::Error),
    /// The pod range has no first address to give to the node.
    #[error("pod range {0} has no room for the node's own address")]
    Range(Ipv4Net),
    /// The directory of the namespaces.
    #[error("create the directory {path} of the pods' network namespaces")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Every address of the range is in use.
    #[error("no free pod address in {0}")]
    Exhausted(Ipv4Net),
    /// A pod was not attached; nothing of it is left.
    #[error("attach pod {pod_uid} to the network as {ip}")]
    Attach {
        /// The pod.
        pod_uid: String,
        /// Its address.
        ip: Ipv4Addr,
        /// Why.
        source: net::Error,
    },
    /// A pod was not, or not wholly, detached.
    #[error("detach pod {pod_uid} from the network")]
    Detach {
        /// The pod.
        pod_uid: String,
        /// Why.
        source: net::Error,
    },
    /// The attached pods are not known.
    #[error("list the pods on the network")]
    List(#[source] net::Error),
}

/// Attaches pods and detaches them. Its methods block for about a millisecond, detaching for up to some tens.
#[derive(Debug)]
pub struct PodNetwork {
    config: PodNetworkConfig,
    node_address: Ipv4Addr,
    mtu: u32,
    host: Mutex<Rtnetlink>,
    addresses: Mutex<AddressPool>,
}

impl PodNetwork {
    /// Prepares the node — forwarding, its own addresses, the route to the Services — in the network namespace of the
    /// calling thread, and takes over the pods that are attached already.
    pub fn new(config: PodNetworkConfig) -> Result<Self, Error> {
        let node_address = config
            .pod_cidr
            .hosts()
            .next()
            .ok_or(Error::Range(config.pod_cidr))?;
        std::fs::create_dir_all(&config.directory).map_err(|source| Error::Directory {
            path: config.directory.clone(),
            source,
        })?;
        let mut host = Rtnetlink::open().map_err(Error::Prepare)?;
        let mtu = prepare(&mut host, &config, node_address).map_err(Error::Prepare)?;
        let mut addresses = AddressPool::new(config.pod_cidr);
        addresses.take(node_address);
        let network = Self {
            config,
            node_address,
            mtu,
            host: Mutex::new(host),
            addresses: Mutex::new(addresses),
        };
        for pod in network.list()? {
            network.addresses.lock().take(pod.ip);
        }
        Ok(network)
    }

    /// The node's own address in the pod network: the source of what it sends to pods and Services.
    pub fn node_address(&self) -> Ipv4Addr {
        self.node_address
    }

    /// Reserves an address for a pod that is about to be attached. Addresses come round in order, so that one that was
    /// just given back is not used again soon. [`PodNetwork::detach`] gives it back.
    pub fn allocate(&self) -> Result<Ipv4Addr, Error> {
        self.addresses
            .lock()
            .allocate()
            .ok_or(Error::Exhausted(self.config.pod_cidr))
    }

    /// Gives back an address that was reserved for a pod that was not attached.
    pub fn release(&self, ip: Ipv4Addr) {
        if ip != self.node_address {
            self.addresses.lock().give_back(ip);
        }
    }

    /// Makes a pod's namespace with `lo` up and `eth0` at this address. A pod that is attached with this address
    /// already stays as it is.
    pub fn attach(&self, pod_uid: &str, ip: Ipv4Addr) -> Result<PodInterface, Error> {
        let failed = |source| Error::Attach {
            pod_uid: pod_uid.to_owned(),
            ip,
            source,
        };
        let pod = PodInterface {
            pod_uid: pod_uid.to_owned(),
            ip,
            netns_path: self.config.directory.join(pod_uid),
            host_device: device_name(pod_uid),
        };
        let alias = alias(&pod);
        let existing = self.host.lock().link(&pod.host_device).map_err(failed)?;
        if existing.is_some_and(|link| link.alias == alias) && netns::exists(&pod.netns_path) {
            self.addresses.lock().take(ip);
            return Ok(pod);
        }
        self.remove(&pod.host_device, &pod.netns_path).map_err(failed)?;
        netns::create(&pod.netns_path, |namespace| {
            let pod_mac = mac(ip);
            let link = {
                let mut host = self.host.lock();
                host.add_veth(&Veth {
                    name: &pod.host_device,
                    mac: NODE_MAC,
                    peer_name: POD_DEVICE,
                    peer_mac: pod_mac,
                    peer_namespace: namespace,
                    mtu: self.mtu,
                })?;
                host.require_link(&pod.host_device)?.index
            };
            let mut eth0 = configure_pod(ip)?;
            let mut host = self.host.lock();
            // A pod cannot send in the name of another.
            host.configure(link, true)?;
            host.set_up(link)?;
            host.add_neighbour(link, ip.into(), pod_mac)?;
            host.add_route(&Route {
                destination: (ip.into(), 32),
                link,
                gateway: None,
                source: Some(self.node_address.into()),
                scope: Scope::Link,
                mtu: None,
            })?;
            // Last: a link with a remark is one that was finished.
            host.set_alias(link, &alias)?;
            drop(host);
            // The node's half came up last and is operational from the start; the pod's was up before.
            eth0.wait_until_operational(POD_DEVICE, OPERATIONAL_WITHIN)
        })
        .map_err(failed)?;
        self.addresses.lock().take(ip);
        Ok(pod)
    }

    /// Removes a pod's link and the name of its namespace. No error if it is not attached.
    pub fn detach(&self, pod_uid: &str) -> Result<(), Error> {
        let failed = |source| Error::Detach {
            pod_uid: pod_uid.to_owned(),
            source,
        };
        let name = device_name(pod_uid);
        let address = self
            .host
            .lock()
            .link(&name)
            .map_err(failed)?
            .and_then(|link| read_alias(&link));
        self.remove(&name, &self.config.directory.join(pod_uid))
            .map_err(failed)?;
        if let Some((_, ip)) = address {
            self.release(ip);
        }
        Ok(())
    }

    /// The pods that are attached, whichever process attached them.
    pub fn list(&self) -> Result<Vec<PodInterface>, Error> {
        let links = self.host.lock().links().map_err(Error::List)?;
        Ok(links
            .iter()
            .filter(|link| link.name.starts_with(LINK_PREFIX))
            .filter_map(|link| {
                let (pod_uid, ip) = read_alias(link)?;
                let netns_path = self.config.directory.join(&pod_uid);
                netns::exists(&netns_path).then(|| PodInterface {
                    pod_uid,
                    ip,
                    netns_path,
                    host_device: link.name.clone(),
                })
            })
            .collect())
    }

    /// Detaches every pod and takes back the node's own addresses and routes. Forwarding stays on: others may rely
    /// on it by now.
    pub fn tear_down(&self) -> Result<(), Error> {
        for path in netns::list(&self.config.directory).map_err(Error::List)? {
            if let Some(pod_uid) = path.file_name().and_then(|name| name.to_str()) {
                self.detach(pod_uid)?;
            }
        }
        let mut host = self.host.lock();
        let loopback = host.loopback().map_err(Error::Prepare)?;
        host.delete_route(&service_route(
            &self.config,
            self.node_address,
            loopback,
            self.mtu,
        ))
        .map_err(Error::Prepare)?;
        for &ip in self.config.local_addresses.iter().chain([&self.node_address]) {
            host.delete_address(loopback, ip.into(), 32)
                .map_err(Error::Prepare)?;
        }
        Ok(())
    }

    fn remove(&self, device: &str, netns_path: &Path) -> Result<(), net::Error> {
        let mut host = self.host.lock();
        if let Some(link) = host.link(device)? {
            host.delete_link(link.index)?;
        }
        drop(host);
        netns::delete(netns_path)
    }
}

/// The node's part. Returns the packet size for pods.
fn prepare(
    host: &mut Rtnetlink,
    config: &PodNetworkConfig,
    node_address: Ipv4Addr,
) -> Result<u32, net::Error> {
    let loopback = host.loopback()?;
    host.set_up(loopback)?;
    let default_link = host.default_route_link()?;
    let mtu = match (config.mtu, default_link) {
        (Some(mtu), _) => mtu,
        (None, Some(index)) => host
            .links()?
            .iter()
            .find(|link| link.index == index)
            .map_or(DEFAULT_MTU, |link| link.mtu.min(VETH_MAX_MTU)),
        (None, None) => DEFAULT_MTU,
    };
    host.add_address(loopback, node_address.into(), 32, Scope::Universe)?;
    for &ip in &config.local_addresses {
        // Reach "host" keeps the kernel from choosing a Service's address as the source of anything.
        host.add_address(loopback, ip.into(), 32, Scope::Host)?;
    }
    host.add_route(&service_route(config, node_address, loopback, mtu))?;
    sysctl::set("ipv4/ip_forward", "1")?;
    Ok(mtu)
}

/// The route that the node's own connections to Services take until the packet rules turn them to an endpoint. What
/// they do not turn is dropped there, and never leaves on `lo`. Its packet size is that of the pods, which is what
/// counts in the end.
fn service_route(config: &PodNetworkConfig, node_address: Ipv4Addr, loopback: u32, mtu: u32) -> Route {
    Route {
        destination: (
            config.service_cidr.network().into(),
            config.service_cidr.prefix_len(),
        ),
        link: loopback,
        gateway: None,
        source: Some(node_address.into()),
        scope: Scope::Link,
        mtu: Some(mtu),
    }
}

/// The pod's part; runs inside its namespace, where `eth0` is already. Returns the socket, which is bound there.
fn configure_pod(ip: Ipv4Addr) -> Result<Rtnetlink, net::Error> {
    let mut pod = Rtnetlink::open()?;
    let loopback = pod.loopback()?;
    pod.set_up(loopback)?;
    let link = pod.require_link(POD_DEVICE)?.index;
    pod.add_address(link, ip.into(), 32, Scope::Universe)?;
    pod.configure(link, false)?;
    pod.set_up(link)?;
    pod.add_neighbour(link, POD_GATEWAY.into(), NODE_MAC)?;
    pod.add_route(&Route {
        destination: EVERYWHERE,
        link,
        gateway: Some(POD_GATEWAY.into()),
        source: None,
        scope: Scope::Universe,
        mtu: None,
    })?;
    Ok(pod)
}

/// A stable name that fits into the 15 bytes of a device name: FNV-1a of the uid.
fn device_name(pod_uid: &str) -> String {
    let hash = pod_uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{LINK_PREFIX}{:012x}", hash & 0xffff_ffff_ffff)
}

/// The Ethernet address of a pod is made from its IP address, as CNI's plugins do it.
fn mac(ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    [0x0a, 0x58, a, b, c, d]
}

fn alias(pod: &PodInterface) -> String {
    format!("pod {} {}", pod.pod_uid, pod.ip)
}

fn read_alias(link: &Link) -> Option<(String, Ipv4Addr)> {
    let mut words = link.alias.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("pod"), Some(pod_uid), Some(ip)) => Some((pod_uid.to_owned(), ip.parse().ok()?)),
        _ => None,
    }
}
