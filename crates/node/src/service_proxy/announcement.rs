//! Answers on the node's link for load balancer addresses that are not its own, so that machines there reach them
//! without a route. Upstream leaves this to MetalLB and others.
//!
//! The kernel does the answering, also while the daemon is away: an entry for a proxied neighbour makes it answer ARP
//! or NDP. It answers ARP only for what it routes over another device, so an IPv4 address has a route over `lo`, too,
//! which no packet takes to its end: the packet rules rewrite the destination or refuse. The address is never the
//! node's own: what listens on the node is not reached by it.

use coracle_kernel::net::neighbour_announcement::announce;
use coracle_kernel::net::rtnetlink::{Link, Route, Rtnetlink, Scope};
use coracle_kernel::net::{Result, sysctl};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Marks our entries among those of others; a number that include/uapi/linux/rtnetlink.h gives nobody.
const OURS: u8 = 205;
/// What a device has unless somebody set it, in hundredths of a second.
const DEFAULT_PROXY_DELAY: &str = "80";

/// The addresses that the node answers for.
#[derive(Debug)]
pub(super) struct Announcements {
    host: Rtnetlink,
}

impl Announcements {
    /// Whatever an earlier process announced stays so until the first [`Announcements::announce`].
    pub fn new(host: Rtnetlink) -> Self {
        Self { host }
    }

    /// Answers for these addresses and no others, and tells the neighbours of each that is new.
    pub fn announce(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        let links = self.host.links()?;
        let own = self.host.addresses()?;
        let outside = [
            self.host.default_route_link(false)?,
            self.host.default_route_link(true)?,
        ];
        let by_index = |index| links.iter().find(|link| link.index == index);
        let mut wanted = Vec::new();
        for ip in addresses {
            if own.iter().any(|address| address.ip == *ip) {
                continue;
            }
            let on_link = own.iter().find(|address| {
                IpNet::new(address.ip, address.prefix).is_ok_and(|network| network.contains(ip))
            });
            let [same, other] = if ip.is_ipv6() {
                [outside[1], outside[0]]
            } else {
                outside
            };
            let on_link = on_link.map(|address| address.link);
            let link = on_link.or(same).or(other).and_then(by_index);
            match link.filter(|link| link.mac.is_some()) {
                Some(link) => wanted.push((link, *ip)),
                None => tracing::warn!(address = %ip, "no Ethernet device to announce the address on"),
            }
        }
        let existing = self.host.proxy_neighbours(OURS)?;
        for &(index, ip) in &existing {
            if !wanted
                .iter()
                .any(|(link, address)| (link.index, *address) == (index, ip))
            {
                self.host.delete_proxy_neighbour(index, ip)?;
                if ip.is_ipv4() && !wanted.iter().any(|(_, address)| *address == ip) {
                    let loopback = self.host.loopback()?;
                    self.host.delete_route(&route(ip, loopback, None))?;
                }
            }
        }
        for (link, ip) in wanted {
            if !existing.contains(&(link.index, ip)) {
                self.add(link, ip)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, link: &Link, ip: IpAddr) -> Result<()> {
        if ip.is_ipv4() {
            let loopback = self.host.loopback()?;
            self.host.add_route(&route(ip, loopback, Some(link.mtu)))?;
        }
        // The kernel would let who asks wait for up to 0.8 s, in case the address's owner answers; that is us.
        set_proxying(link, ip, "0", "1")?;
        self.host.add_proxy_neighbour(link.index, ip, OURS)?;
        tracing::info!(address = %ip, device = link.name, "answering for a load balancer's address");
        announce(link, ip)
    }

    /// Answers for nothing any more.
    pub fn withdraw(&mut self) -> Result<()> {
        let existing = self.host.proxy_neighbours(OURS)?;
        if existing.is_empty() {
            return Ok(());
        }
        self.announce(&BTreeSet::new())?;
        let links = self.host.links()?;
        for (index, ip) in existing {
            if let Some(link) = links.iter().find(|link| link.index == index) {
                set_proxying(link, ip, DEFAULT_PROXY_DELAY, "0")?;
            }
        }
        Ok(())
    }
}

/// How long to wait with an answer for what is proxied, and, where that is a question, whether to answer.
fn set_proxying(link: &Link, ip: IpAddr, delay: &str, on: &str) -> Result<()> {
    let name = &link.name;
    if ip.is_ipv6() {
        sysctl::set(&format!("ipv6/neigh/{name}/proxy_delay"), delay)?;
        sysctl::set(&format!("ipv6/conf/{name}/proxy_ndp"), on)
    } else {
        sysctl::set(&format!("ipv4/neigh/{name}/proxy_delay"), delay)
    }
}

/// For IPv4. Its packet size is that of the device: `lo` would take more than the way to an endpoint does.
fn route(ip: IpAddr, loopback: u32, mtu: Option<u32>) -> Route {
    Route {
        destination: (ip, 32),
        link: loopback,
        gateway: None,
        source: None,
        scope: Scope::Link,
        mtu,
    }
}
