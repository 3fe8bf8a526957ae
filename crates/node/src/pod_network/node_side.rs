//! The node's own part of the pod network: its addresses, the routes to Services, forwarding.

use super::interface::{LINK_PREFIX, NODE_MAC, host_prefix};
use super::{Error, PodNetworkConfig};
use coracle_kernel::net::rtnetlink::{Route, Rtnetlink, Scope, Veth};
use coracle_kernel::net::{self, netns, sysctl};
use coracle_meta::cidr::indexed_ip;
use ipnet::IpNet;
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Where no default route tells.
const DEFAULT_MTU: u32 = 1500;
/// Largest packet a pair of devices takes.
const VETH_MAX_MTU: u32 = 65_535;
/// The device that IPv6 Services are routed to.
const SERVICE_DEVICE: &str = "coracle0";
/// Its other half, which gives it a carrier.
const SERVICE_PEER: &str = "coracle1";

/// The node's addresses in the pod network, one for each pod range: the first of it.
pub(super) fn node_addresses(config: &PodNetworkConfig) -> Result<Vec<IpAddr>, Error> {
    let of = |range: &IpNet| indexed_ip(*range, 1).ok_or(Error::Range(*range));
    config.pod_cidrs.iter().map(of).collect()
}

/// Prepares the node. Returns the packet size for pods.
pub(super) fn prepare(
    host: &mut Rtnetlink,
    config: &PodNetworkConfig,
    node_addresses: &[IpAddr],
) -> Result<u32, net::Error> {
    let loopback = host.loopback()?;
    host.set_up(loopback)?;
    let mtu = match config.mtu {
        Some(mtu) => mtu,
        None => default_route_mtu(host, node_addresses)?,
    };
    for &ip in node_addresses {
        host.add_address(loopback, ip, host_prefix(ip), Scope::Universe)?;
    }
    for &ip in &config.local_addresses {
        // Reach "host" keeps the kernel from choosing a Service's address as the source of anything.
        host.add_address(loopback, ip, host_prefix(ip), Scope::Host)?;
    }
    for &range in &config.service_cidrs {
        let device = service_device(host, range, mtu)?;
        host.add_route(&service_route(range, node_addresses, device, Some(mtu)))?;
    }
    for range in &config.pod_cidrs {
        // Who connects to a pod that is gone, by a name kept in mind, learns that at once and tries the next address.
        host.add_unreachable((range.network(), range.prefix_len()))?;
    }
    for ip in node_addresses {
        if ip.is_ipv6() {
            forward_ipv6(host)?;
        } else {
            sysctl::set("ipv4/ip_forward", "1")?;
        }
    }
    Ok(mtu)
}

/// Takes back the addresses and routes of a configuration but those of another. Forwarding stays on: others may rely
/// on it by now.
pub(super) fn take_back(
    host: &mut Rtnetlink,
    config: &PodNetworkConfig,
    kept: Option<&PodNetworkConfig>,
) -> Result<(), Error> {
    let mut addresses = node_addresses(config)?;
    let mut kept_addresses = kept.map(node_addresses).transpose()?.unwrap_or_default();
    addresses.extend(&config.local_addresses);
    kept_addresses.extend(kept.into_iter().flat_map(|kept| &kept.local_addresses));
    let kept_pods = kept.map_or(&[][..], |kept| &kept.pod_cidrs);
    let kept_services = kept.map_or(&[][..], |kept| &kept.service_cidrs);
    let mut delete = || {
        for range in config.pod_cidrs.iter().filter(|range| !kept_pods.contains(range)) {
            host.delete_unreachable((range.network(), range.prefix_len()))?;
        }
        let loopback = host.loopback()?;
        let device = host.link(SERVICE_DEVICE)?.map(|device| device.index);
        let gone = config.service_cidrs.iter();
        for range in gone.filter(|range| !kept_services.contains(range)) {
            let over = if range.addr().is_ipv6() {
                device
            } else {
                Some(loopback)
            };
            if let Some(over) = over {
                host.delete_route(&service_route(*range, &addresses, over, None))?;
            }
        }
        if let Some(device) = device.filter(|_| !kept_services.iter().any(|range| range.addr().is_ipv6())) {
            host.delete_link(device)?;
        }
        for &ip in addresses.iter().filter(|ip| !kept_addresses.contains(ip)) {
            host.delete_address(loopback, ip, host_prefix(ip))?;
        }
        Ok(())
    };
    delete().map_err(Error::Prepare)
}

/// The packet size of the default route's device, of the primary family if both have one.
fn default_route_mtu(host: &mut Rtnetlink, node_addresses: &[IpAddr]) -> Result<u32, net::Error> {
    for ip in node_addresses {
        if let Some(index) = host.default_route_link(ip.is_ipv6())? {
            let links = host.links()?;
            let device = links.iter().find(|link| link.index == index);
            return Ok(device.map_or(DEFAULT_MTU, |link| link.mtu.min(VETH_MAX_MTU)));
        }
    }
    Ok(DEFAULT_MTU)
}

/// The route that the node's own connections to Services take until the packet rules turn them to an endpoint. What
/// they do not turn is dropped there, and never leaves on the device. Its packet size is that of the pods, which is
/// what counts in the end.
fn service_route(range: IpNet, node_addresses: &[IpAddr], device: u32, mtu: Option<u32>) -> Route {
    let same_family = |ip: &&IpAddr| ip.is_ipv6() == range.addr().is_ipv6();
    Route {
        destination: (range.network(), range.prefix_len()),
        link: device,
        gateway: None,
        source: node_addresses.iter().find(same_family).copied(),
        scope: Scope::Link,
        mtu,
    }
}

/// The device of the route to Services. In IPv4 `lo` will do. In IPv6 a route over `lo` refuses packets before the rules
/// see them, so there is a pair of devices for it that no packet ever passes.
fn service_device(host: &mut Rtnetlink, range: IpNet, mtu: u32) -> Result<u32, net::Error> {
    if range.addr().is_ipv4() {
        return host.loopback();
    }
    if host.link(SERVICE_DEVICE)?.is_none() {
        host.add_veth(&Veth {
            name: SERVICE_DEVICE,
            mac: NODE_MAC,
            peer_name: SERVICE_PEER,
            peer_mac: NODE_MAC,
            peer_namespace: netns::own()?.as_fd(),
            mtu,
        })?;
    }
    // A daemon that was killed may have left them down.
    for name in [SERVICE_PEER, SERVICE_DEVICE] {
        let link = host.require_link(name)?.index;
        host.configure(link, false)?;
        host.set_up(link)?;
    }
    Ok(host.require_link(SERVICE_DEVICE)?.index)
}

/// A machine that forwards IPv6 takes no router advertisements any more unless told to: one that has its own address
/// and default route from them would lose both.
fn forward_ipv6(host: &mut Rtnetlink) -> Result<(), net::Error> {
    const FORWARDING: &str = "ipv6/conf/all/forwarding";
    if sysctl::get(FORWARDING).as_deref() != Some("1") {
        for link in host.links()? {
            let accepts = format!("ipv6/conf/{}/accept_ra", link.name);
            if !link.name.starts_with(LINK_PREFIX) && sysctl::get(&accepts).as_deref() == Some("1") {
                sysctl::set(&accepts, "2")?;
            }
        }
    }
    sysctl::set(FORWARDING, "1")
}
