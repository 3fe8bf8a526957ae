//! Neighbours: Ethernet addresses that are known for good, and addresses that the kernel answers for (proxy ARP, NDP).
//!
//! Source: include/uapi/linux/neighbour.h.

use super::{INET, INET6, Mac, Rtnetlink, family, octets, parse_ip};
use crate::net::Result;
use crate::net::netlink::{Attributes, CREATE, DUMP, Messages, REPLACE, REQUEST};
use rustix::io::Errno;
use std::net::IpAddr;

const NEW_NEIGHBOUR: u16 = 28;
const DELETE_NEIGHBOUR: u16 = 29;
const GET_NEIGHBOUR: u16 = 30;
const NEIGHBOUR_DESTINATION: u16 = 1;
const NEIGHBOUR_PROTOCOL: u16 = 12;
/// `NTF_PROXY`.
const PROXY: u8 = 8;

impl Rtnetlink {
    /// Makes the kernel answer on a device for an address that it routes elsewhere (proxy ARP and proxy NDP). It has to
    /// forward, and a route to the address has to lead over another device. `by` tells who added it, and is not zero.
    pub fn add_proxy_neighbour(&mut self, link: u32, ip: IpAddr, by: u8) -> Result<()> {
        let what = format!("answer for {ip} on network device {link}");
        self.send(
            &what,
            NEW_NEIGHBOUR,
            CREATE | REPLACE,
            &neighbour_header(link, family(ip), 0, PROXY),
            |m| {
                m.attribute(NEIGHBOUR_DESTINATION, &octets(ip));
                m.attribute(NEIGHBOUR_PROTOCOL, &[by]);
            },
        )
    }

    /// The opposite; no error if it is not so.
    pub fn delete_proxy_neighbour(&mut self, link: u32, ip: IpAddr) -> Result<()> {
        let what = format!("answer for {ip} on network device {link} no more");
        let header = neighbour_header(link, family(ip), 0, PROXY);
        match self.send(&what, DELETE_NEIGHBOUR, 0, &header, |m| {
            m.attribute(NEIGHBOUR_DESTINATION, &octets(ip));
        }) {
            Err(error) if error.is(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// Device and address of what was added by this one.
    pub fn proxy_neighbours(&mut self, by: u8) -> Result<Vec<(u32, IpAddr)>> {
        let mut found = Vec::new();
        for family in [INET, INET6] {
            let mut messages = Messages::new();
            let header = neighbour_header(0, family, 0, PROXY);
            messages.message(GET_NEIGHBOUR, REQUEST | DUMP, &header, |_| ());
            self.socket
                .dump("list proxied neighbours", &messages, |_, payload| {
                    let (Some(&[_, _, _, _, a, b, c, d, _, _, PROXY, _]), Some(attributes)) =
                        (payload.get(..12), payload.get(12..))
                    else {
                        return;
                    };
                    let attributes = Attributes(attributes);
                    if attributes.get(NEIGHBOUR_PROTOCOL) == Some(&[by])
                        && let Some(ip) = attributes.get(NEIGHBOUR_DESTINATION).and_then(parse_ip)
                    {
                        found.push((u32::from_ne_bytes([a, b, c, d]), ip));
                    }
                })?;
        }
        Ok(found)
    }

    /// Tells a device the Ethernet address of a neighbour, for good: nobody ever asks for it on the wire.
    pub fn add_neighbour(&mut self, link: u32, ip: IpAddr, mac: Mac) -> Result<()> {
        const PERMANENT: u16 = 0x80;
        const LINK_ADDRESS: u16 = 2;
        let header = neighbour_header(link, family(ip), PERMANENT, 0);
        let what = format!("add the neighbour {ip} to network device {link}");
        self.send(&what, NEW_NEIGHBOUR, CREATE | REPLACE, &header, |m| {
            m.attribute(NEIGHBOUR_DESTINATION, &octets(ip));
            m.attribute(LINK_ADDRESS, &mac);
        })
    }
}

/// `struct ndmsg`.
fn neighbour_header(link: u32, family: u8, state: u16, flags: u8) -> [u8; 12] {
    let [a, b, c, d] = link.to_ne_bytes();
    let [state_a, state_b] = state.to_ne_bytes();
    [family, 0, 0, 0, a, b, c, d, state_a, state_b, flags, 0]
}
