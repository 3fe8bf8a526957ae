//! The sockets that listen in a Pod, as the kernel lists them: `/proc/net/{tcp,udp}{,6}`, and of SCTP the endpoints.

use super::node::Here;
use coracle_diagnose::{Protocol, Seen, Socket};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Of this thread: a process's own would be that of its first thread.
const DIRECTORY: &str = "/proc/thread-self/net";
const TCP_LISTEN: &str = "0A";
/// A UDP socket that takes datagrams from anybody is closed as far as TCP's names go; a connected one is not.
const UDP_UNCONNECTED: &str = "07";
const SCTP_LISTEN: &str = "10";

/// Of all Pods that are not ending.
pub fn of_pods(here: &Here, pods: &[Arc<Pod>]) -> BTreeMap<String, Seen<Vec<Socket>>> {
    pods.iter()
        .map(|pod| {
            let sockets = here.place_of(pod).and_then(|place| place.run(read)?);
            (pod.metadata.name.clone().unwrap_or_default(), sockets)
        })
        .collect()
}

/// Of the network namespace of the calling thread.
fn read() -> Seen<Vec<Socket>> {
    let mut sockets = Vec::new();
    for (file, protocol, state) in [
        ("tcp", Protocol::Tcp, TCP_LISTEN),
        ("tcp6", Protocol::Tcp, TCP_LISTEN),
        ("udp", Protocol::Udp, UDP_UNCONNECTED),
        ("udp6", Protocol::Udp, UDP_UNCONNECTED),
    ] {
        let path = format!("{DIRECTORY}/{file}");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
        sockets.extend(parse(&text, protocol, state));
    }
    // Only where the kernel's SCTP is in use.
    let sctp = std::fs::read_to_string(format!("{DIRECTORY}/sctp/eps")).unwrap_or_default();
    sockets.extend(parse_sctp(&sctp));
    sockets.sort_unstable();
    sockets.dedup();
    Ok(sockets)
}

fn parse(text: &str, protocol: Protocol, state: &str) -> Vec<Socket> {
    let socket = |line: &str| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        if words.nth(1)? != state {
            return None;
        }
        let (address, port) = local.split_once(':')?;
        Some(Socket {
            protocol,
            address: parse_address(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
        })
    };
    text.lines().skip(1).filter_map(socket).collect()
}

/// Words of 32 bits in network byte order, printed as numbers of this machine.
fn parse_address(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for word in text.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

fn parse_sctp(text: &str) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for line in text.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, state, _, port, _, _, addresses @ ..] = words.as_slice() else {
            continue;
        };
        let Some(port) = port.parse().ok().filter(|_| *state == SCTP_LISTEN) else {
            continue;
        };
        sockets.extend(addresses.iter().filter_map(|address| {
            Some(Socket {
                protocol: Protocol::Sctp,
                address: address.parse().ok()?,
                port,
            })
        }));
    }
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0500F40A:9C40 0A00600A:0035 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
";
    const SCTP: &str = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
 0 0 2   10  35   9899      0 77 0.0.0.0 10.244.0.5
";

    #[cfg(target_endian = "little")]
    #[test]
    fn sockets_that_listen_are_read() {
        let text = |sockets: Vec<Socket>| -> Vec<String> {
            sockets
                .iter()
                .map(|s| format!("{} {} {}", s.protocol, s.address, s.port))
                .collect()
        };
        assert_eq!(
            text(parse(TCP, Protocol::Tcp, TCP_LISTEN)),
            ["TCP 127.0.0.1 8080"]
        );
        assert_eq!(
            text(parse(TCP6, Protocol::Tcp, TCP_LISTEN)),
            ["TCP :: 8080", "TCP ::1 80"]
        );
        assert_eq!(
            text(parse_sctp(SCTP)),
            ["SCTP 0.0.0.0 9899", "SCTP 10.244.0.5 9899"]
        );
    }

    #[test]
    fn a_real_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let datagrams =
            std::net::UdpSocket::bind("[::1]:0").or_else(|_| std::net::UdpSocket::bind("127.0.0.1:0"));
        let datagrams = datagrams.expect("a free port");
        let sockets = read().expect("readable");
        for (protocol, address) in [
            (Protocol::Tcp, listener.local_addr().expect("an address")),
            (Protocol::Udp, datagrams.local_addr().expect("an address")),
        ] {
            let wanted = Socket {
                protocol,
                address: address.ip(),
                port: address.port(),
            };
            assert!(sockets.contains(&wanted), "{wanted:?} in {sockets:?}");
        }
    }
}
