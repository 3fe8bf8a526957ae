//! A pod's end of its link, and what is written on the node's end so that the next process knows whose it is.

use coracle_kernel::net;
use coracle_kernel::net::rtnetlink::{Link, Mac, Route, Rtnetlink, Scope};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Ethernet address of the node on every pod's link: the links are private, so one address is enough.
pub(super) const NODE_MAC: Mac = [0xee; 6];
/// The device inside a pod.
pub(super) const POD_DEVICE: &str = "eth0";
/// What the names of the node's halves begin with.
pub(crate) const LINK_PREFIX: &str = "cor";
/// Next hop of every pod.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A pod's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInterface {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Its addresses, one of each family in use, the primary one first.
    pub ips: Vec<IpAddr>,
    /// The file that names its network namespace.
    pub netns_path: PathBuf,
    /// The node's half of the link.
    pub host_device: String,
}

/// The pod's part; runs inside its namespace, where `eth0` is already. Returns the socket, which is bound there.
pub(super) fn configure_pod(ips: &[IpAddr]) -> Result<Rtnetlink, net::Error> {
    let mut pod = Rtnetlink::open()?;
    let loopback = pod.loopback()?;
    pod.set_up(loopback)?;
    let link = pod.require_link(POD_DEVICE)?.index;
    pod.configure(link, false)?;
    pod.set_up(link)?;
    for &ip in ips {
        pod.add_address(link, ip, host_prefix(ip), Scope::Universe)?;
        let gateway: IpAddr = if ip.is_ipv6() {
            GATEWAY_V6.into()
        } else {
            GATEWAY_V4.into()
        };
        pod.add_neighbour(link, gateway, NODE_MAC)?;
        pod.add_route(&Route {
            destination: everywhere(ip),
            link,
            gateway: Some(gateway),
            source: None,
            scope: Scope::Universe,
            mtu: None,
        })?;
    }
    Ok(pod)
}

/// The prefix length of one address.
pub(super) fn host_prefix(ip: IpAddr) -> u8 {
    if ip.is_ipv6() { 128 } else { 32 }
}

/// The default destination of an address's family.
fn everywhere(ip: IpAddr) -> (IpAddr, u8) {
    match ip {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

/// A stable name that fits into the 15 bytes of a device name: FNV-1a of the uid.
pub(super) fn device_name(pod_uid: &str) -> String {
    let hash = pod_uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{LINK_PREFIX}{:012x}", hash & 0xffff_ffff_ffff)
}

/// The Ethernet address of a pod is made from its primary IP address, as CNI's plugins do it; of an IPv6 address its
/// end tells pods apart.
pub(super) fn mac(ips: &[IpAddr]) -> Mac {
    let [a, b, c, d] = match ips.first() {
        Some(IpAddr::V4(ip)) => ip.octets(),
        Some(IpAddr::V6(ip)) => {
            let [.., a, b, c, d] = ip.octets();
            [a, b, c, d]
        }
        None => [0; 4],
    };
    [0x0a, 0x58, a, b, c, d]
}

/// The remark on the node's half.
pub(super) fn alias(pod: &PodInterface) -> String {
    let ips: Vec<String> = pod.ips.iter().map(ToString::to_string).collect();
    format!("pod {} {}", pod.pod_uid, ips.join(","))
}

/// Uid and addresses of the pod that a link belongs to; none if it is not a pod's.
pub(super) fn read_alias(link: &Link) -> Option<(String, Vec<IpAddr>)> {
    let mut words = link.alias.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("pod"), Some(pod_uid), Some(ips)) => {
            let ips: Result<Vec<IpAddr>, _> = ips.split(',').map(str::parse).collect();
            Some((pod_uid.to_owned(), ips.ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_process_reads_whose_a_link_is() {
        for ips in [&["10.244.0.5"][..], &["fd00::5"], &["10.244.0.5", "fd00::5"]] {
            let pod = PodInterface {
                pod_uid: "0af3".into(),
                ips: ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
                netns_path: PathBuf::new(),
                host_device: device_name("0af3"),
            };
            let link = Link {
                index: 7,
                name: pod.host_device.clone(),
                alias: alias(&pod),
                mac: None,
                mtu: 1500,
                operational: true,
            };
            assert_eq!(read_alias(&link), Some((pod.pod_uid, pod.ips)));
        }
    }

    #[test]
    fn other_links_are_nobodys() {
        for alias in [
            "",
            "pod",
            "pod 0af3",
            "pod 0af3 x",
            "pod 0af3 10.244.0.5,",
            "bridge 1 2",
        ] {
            let link = Link {
                index: 7,
                name: "cor0".into(),
                alias: alias.into(),
                mac: None,
                mtu: 1500,
                operational: true,
            };
            assert_eq!(read_alias(&link), None, "{alias}");
        }
    }

    #[test]
    fn pods_have_ethernet_addresses_of_their_own() {
        let of = |ips: &[&str]| {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
            mac(&ips)
        };
        assert_eq!(of(&["10.244.0.5", "fd00::6"]), [0x0a, 0x58, 10, 244, 0, 5]);
        assert_eq!(of(&["fd00::1:5", "10.244.0.5"]), [0x0a, 0x58, 0, 1, 0, 5]);
    }
}
