//! Telling the neighbours on a link, without being asked, that an address is here now: gratuitous ARP and unsolicited
//! neighbour advertisements. Sources: RFC 826, RFC 5227 section 3, RFC 4861 section 7.2.6.

use super::rtnetlink::{Link, Mac, octets};
use super::{Error, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sockopt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Announces an address on a link, in the network namespace of the calling thread. `EADDRNOTAVAIL` if the link has no
/// Ethernet address.
pub fn announce(link: &Link, ip: IpAddr) -> Result<()> {
    let failed = |cause: std::io::Error| Error::new(format!("announce {ip} on {}", link.name), cause);
    let mac = link.mac.ok_or_else(|| failed(Errno::ADDRNOTAVAIL.into()))?;
    match ip {
        IpAddr::V4(ip) => announce_by_arp(link.index, mac, ip),
        IpAddr::V6(ip) => announce_by_ndp(link.index, mac, ip),
    }
    .map_err(failed)
}

/// As a request and as a reply: some listen to the one, some to the other.
fn announce_by_arp(link: u32, mac: Mac, ip: Ipv4Addr) -> std::io::Result<()> {
    // Nothing is received: the socket listens to no protocol.
    let socket = rustix::net::socket_with(
        AddressFamily::PACKET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut hardware_address = [0; 8];
    hardware_address[..6].copy_from_slice(&BROADCAST);
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: link.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: hardware_address,
    };
    for operation in [1, 2] {
        let packet = arp(operation, mac, ip);
        // SAFETY: both pointers are to values that outlive the call, with their sizes; the descriptor is open.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                std::ptr::from_ref(&to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        };
        if sent < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ethernet and IPv4; sender and target are the address that is announced.
fn arp(operation: u8, mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let target = if operation == 1 { [0; 6] } else { BROADCAST };
    let mut packet = vec![0, 1, 0x08, 0, 6, 4, 0, operation];
    packet.extend(mac);
    packet.extend(ip.octets());
    packet.extend(target);
    packet.extend(ip.octets());
    packet
}

fn announce_by_ndp(link: u32, mac: Mac, ip: Ipv6Addr) -> std::io::Result<()> {
    const HOPS: u32 = 255;
    let socket = rustix::net::socket_with(
        AddressFamily::INET6,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::ICMPV6),
    )?;
    sockopt::set_ipv6_multicast_hops(&socket, HOPS)?;
    let to = SocketAddrV6::new(ALL_NODES, 0, 0, link);
    // The kernel fills in the checksum.
    rustix::net::sendto(
        &socket,
        &neighbour_advertisement(mac, ip),
        SendFlags::empty(),
        &to,
    )?;
    Ok(())
}

/// From a router that is not the owner of the address proper: what is known of it otherwise is replaced all the same.
fn neighbour_advertisement(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    const ROUTER_OVERRIDE: u8 = 0x80 | 0x20;
    const TARGET_LINK_ADDRESS: [u8; 2] = [2, 1];
    let mut packet = vec![136, 0, 0, 0, ROUTER_OVERRIDE, 0, 0, 0];
    packet.extend(octets(ip.into()));
    packet.extend(TARGET_LINK_ADDRESS);
    packet.extend(mac);
    packet
}
