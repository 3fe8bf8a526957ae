//! The network of the pods on this node: each has a network namespace and one point-to-point link to the node.
//!
//! There is no bridge and no proxy ARP. The pod's `eth0` has a /32 or /128 address and a default route to 169.254.1.1
//! or fe80::1, whose Ethernet address it is told for good; the node has a route to that address over the other half of
//! the pair. So each packet is routed by the node, nobody asks for neighbours or waits to find an address unique, and a
//! pod reaches itself through its Service without special kernel settings. The namespaces and links outlive the
//! daemon. Upstream leaves this to CNI plugins.
//!
//! The node itself has the first address of its pod range, on `lo`: what the node sends to a pod or a Service comes
//! from there, whatever addresses the machine has, gets or loses, even none.
//!
//! With two families there are two pod ranges, and each pod has an address of both.

mod address_pool;
pub mod forwarding;
mod interface;
mod node_side;

pub use address_pool::AddressPool;
pub(crate) use interface::LINK_PREFIX;
pub use interface::PodInterface;

use coracle_kernel::net::rtnetlink::{Route, Rtnetlink, Scope, Veth};
use coracle_kernel::net::{self, netns};
use interface::{NODE_MAC, POD_DEVICE, alias, configure_pod, device_name, host_prefix, mac, read_alias};
use ipnet::IpNet;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A busy kernel may take a while.
const OPERATIONAL_WITHIN: Duration = Duration::from_secs(10);

/// What the pod network needs to know.
#[derive(Debug, Clone)]
pub struct PodNetworkConfig {
    /// Directory of the files that name the pods' namespaces, one for each pod, named by its uid.
    pub directory: PathBuf,
    /// The pod addresses of this node, a range for each family in use, the primary one first. The first host address
    /// of each is the node's own.
    pub pod_cidrs: Vec<IpNet>,
    /// The addresses of Services, routed so that the node's own connections reach the packet rules.
    pub service_cidrs: Vec<IpNet>,
    /// Addresses served by the node itself, such as those of the cluster DNS.
    pub local_addresses: Vec<IpAddr>,
    /// Largest packet, in bytes; without it that of the default route's device, or 1500.
    pub mtu: Option<u32>,
}

/// What failed, and for whom.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's own addresses and routes.
    #[error("prepare the node's pod network")]
    Prepare(#[source] net::Error),
    /// The pod range has no first address to give to the node.
    #[error("pod range {0} has no room for the node's own address")]
    Range(IpNet),
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
    Exhausted(IpNet),
    /// A pod was not attached; nothing of it is left.
    #[error("attach pod {pod_uid} to the network as {ips:?}")]
    Attach {
        /// The pod.
        pod_uid: String,
        /// Its addresses.
        ips: Vec<IpAddr>,
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
    node_addresses: Vec<IpAddr>,
    mtu: u32,
    host: Mutex<Rtnetlink>,
    /// One for each pod range.
    pools: Mutex<Vec<AddressPool>>,
}

/// Takes back the node's own addresses and routes that a daemon before had and this one does without: those of a
/// family that the cluster has no more.
pub fn withdraw(before: &PodNetworkConfig, now: &PodNetworkConfig) -> Result<(), Error> {
    let mut host = Rtnetlink::open().map_err(Error::Prepare)?;
    node_side::take_back(&mut host, before, Some(now))
}

impl PodNetwork {
    /// Prepares the node — forwarding, its own addresses, the routes to the Services — in the network namespace of the
    /// calling thread, and takes over the pods that are attached already.
    pub fn new(config: PodNetworkConfig) -> Result<Self, Error> {
        let node_addresses = node_side::node_addresses(&config)?;
        std::fs::create_dir_all(&config.directory).map_err(|source| Error::Directory {
            path: config.directory.clone(),
            source,
        })?;
        let mut host = Rtnetlink::open().map_err(Error::Prepare)?;
        let mtu = node_side::prepare(&mut host, &config, &node_addresses).map_err(Error::Prepare)?;
        let pools = config.pod_cidrs.iter().copied().map(AddressPool::new).collect();
        let network = Self {
            config,
            node_addresses,
            mtu,
            host: Mutex::new(host),
            pools: Mutex::new(pools),
        };
        network.take(&network.node_addresses);
        for pod in network.list()? {
            network.take(&pod.ips);
        }
        Ok(network)
    }

    /// The node's own addresses in the pod network, one of each family in use, the primary one first: the sources of
    /// what it sends to pods and Services.
    pub fn node_addresses(&self) -> &[IpAddr] {
        &self.node_addresses
    }

    /// Reserves an address of each family for a pod that is about to be attached. Addresses come round in order, so
    /// that one that was just given back is not used again soon. [`PodNetwork::detach`] gives them back.
    pub fn allocate(&self) -> Result<Vec<IpAddr>, Error> {
        let mut pools = self.pools.lock();
        let mut ips = Vec::with_capacity(pools.len());
        for index in 0..pools.len() {
            match pools[index].allocate() {
                Some(ip) => ips.push(ip),
                None => {
                    let full = pools[index].range();
                    for (pool, ip) in pools.iter_mut().zip(ips) {
                        pool.give_back(ip);
                    }
                    return Err(Error::Exhausted(full));
                }
            }
        }
        Ok(ips)
    }

    /// Gives back addresses that were reserved for a pod that was not attached.
    pub fn release(&self, ips: &[IpAddr]) {
        let mut pools = self.pools.lock();
        for ip in ips.iter().filter(|ip| !self.node_addresses.contains(ip)) {
            pools.iter_mut().for_each(|pool| pool.give_back(*ip));
        }
    }

    fn take(&self, ips: &[IpAddr]) {
        let mut pools = self.pools.lock();
        for ip in ips {
            pools.iter_mut().for_each(|pool| pool.take(*ip));
        }
    }

    /// Makes a pod's namespace with `lo` up and `eth0` at these addresses, one of a family, the primary one first. A pod
    /// that is attached with these addresses already stays as it is.
    pub fn attach(&self, pod_uid: &str, ips: &[IpAddr]) -> Result<PodInterface, Error> {
        let failed = |source| Error::Attach {
            pod_uid: pod_uid.to_owned(),
            ips: ips.to_vec(),
            source,
        };
        let pod = PodInterface {
            pod_uid: pod_uid.to_owned(),
            ips: ips.to_vec(),
            netns_path: self.config.directory.join(pod_uid),
            host_device: device_name(pod_uid),
        };
        let alias = alias(&pod);
        let existing = self.host.lock().link(&pod.host_device).map_err(failed)?;
        if existing.is_some_and(|link| link.alias == alias) && netns::exists(&pod.netns_path) {
            self.take(ips);
            return Ok(pod);
        }
        self.remove(&pod.host_device, &pod.netns_path).map_err(failed)?;
        netns::create(&pod.netns_path, |namespace| {
            let pod_mac = mac(ips);
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
            let mut eth0 = configure_pod(ips)?;
            let mut host = self.host.lock();
            // A pod cannot send in the name of another. In IPv6 the packet rules see to that.
            host.configure(link, true)?;
            host.set_up(link)?;
            for &ip in ips {
                host.add_neighbour(link, ip, pod_mac)?;
                host.add_route(&Route {
                    destination: (ip, host_prefix(ip)),
                    link,
                    gateway: None,
                    source: self.node_address(ip.is_ipv6()),
                    scope: Scope::Link,
                    mtu: None,
                })?;
            }
            // Last: a link with a remark is one that was finished.
            host.set_alias(link, &alias)?;
            drop(host);
            // The node's half came up last and is operational from the start; the pod's was up before.
            eth0.wait_until_operational(POD_DEVICE, OPERATIONAL_WITHIN)
        })
        .map_err(failed)?;
        self.take(ips);
        Ok(pod)
    }

    fn node_address(&self, ipv6: bool) -> Option<IpAddr> {
        let mut addresses = self.node_addresses.iter();
        addresses.find(|ip| ip.is_ipv6() == ipv6).copied()
    }

    /// Removes a pod's link and the name of its namespace. No error if it is not attached.
    pub fn detach(&self, pod_uid: &str) -> Result<(), Error> {
        let failed = |source| Error::Detach {
            pod_uid: pod_uid.to_owned(),
            source,
        };
        let name = device_name(pod_uid);
        let addresses = self
            .host
            .lock()
            .link(&name)
            .map_err(failed)?
            .and_then(|link| read_alias(&link));
        self.remove(&name, &self.config.directory.join(pod_uid))
            .map_err(failed)?;
        if let Some((_, ips)) = addresses {
            self.release(&ips);
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
                let (pod_uid, ips) = read_alias(link)?;
                let netns_path = self.config.directory.join(&pod_uid);
                netns::exists(&netns_path).then(|| PodInterface {
                    pod_uid,
                    ips,
                    netns_path,
                    host_device: link.name.clone(),
                })
            })
            .collect())
    }

    /// Detaches every pod and takes back the node's own addresses and routes.
    pub fn tear_down(&self) -> Result<(), Error> {
        for path in netns::list(&self.config.directory).map_err(Error::List)? {
            if let Some(pod_uid) = path.file_name().and_then(|name| name.to_str()) {
                self.detach(pod_uid)?;
            }
        }
        let mut host = self.host.lock();
        node_side::take_back(&mut host, &self.config, None)
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
