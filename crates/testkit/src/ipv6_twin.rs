//! Each IPv4 address has a twin in IPv6, so that a test that is written for one family runs for both.
//!
//! The twin of 10.96.0.80 is fd00:64::10.96.0.80: networks stay networks, and what differs stays different.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 0);
const PREFIX_LENGTH: u8 = 96;

/// The twin of an address. That of any loopback address is `::1`, and `0.0.0.0` is `::`.
pub fn of(ip: Ipv4Addr) -> Ipv6Addr {
    if ip.is_loopback() {
        Ipv6Addr::LOCALHOST
    } else if ip.is_unspecified() {
        Ipv6Addr::UNSPECIFIED
    } else {
        Ipv6Addr::from_bits(PREFIX.to_bits() | u128::from(ip.to_bits()))
    }
}

/// The IPv4 address whose twin this is; of an IPv4 address itself.
///
/// # Panics
///
/// If it is nobody's twin.
pub fn back(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv4Addr::LOCALHOST,
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(twin) => {
            let [.., a, b, c, d] = twin.octets();
            let ip = Ipv4Addr::new(a, b, c, d);
            assert_eq!(of(ip), twin, "the twin of an IPv4 address");
            ip
        }
    }
}

/// A text, such as a Service in JSON, with the twins of all addresses, networks and sockets in it.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        out.push_str(before);
        let end = number
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(number.len());
        let (word, behind) = number.split_at(end);
        rest = behind;
        // Digits at the end of a word, such as that of an IPv6 address, begin no address.
        let begins = !out.ends_with(|c: char| c.is_ascii_alphanumeric() || c == ':' || c == '.');
        let Some(ip) = word.parse::<Ipv4Addr>().ok().filter(|_| begins) else {
            out.push_str(word);
            continue;
        };
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        match rest.as_bytes() {
            [b':', b'0'..=b'9', ..] => out.push_str(&format!("[{}]", of(ip))),
            [b'/', b'0'..=b'9', ..] => {
                let end = 1 + digits(&rest[1..]);
                let length: u8 = rest[1..end].parse().expect("a prefix length");
                out.push_str(&format!("{}/{}", of(ip), PREFIX_LENGTH + length));
                rest = &rest[end..];
            }
            _ => out.push_str(&of(ip).to_string()),
        }
    }
    out.push_str(rest);
    out.replace("\"IPv4\"", "\"IPv6\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_networks_and_sockets_have_twins() {
        for (ipv4, ipv6) in [
            ("10.96.0.80", "fd00:64::a60:50"),
            ("10.96.0.80:80", "[fd00:64::a60:50]:80"),
            ("192.0.2.0/27 away", "fd00:64::c000:200/123 away"),
            (
                r#"{"ip":"127.0.0.1","port":80,"x":"IPv4"}"#,
                r#"{"ip":"::1","port":80,"x":"IPv6"}"#,
            ),
            ("fd00:244::5, v1.2.3.4, 1.36", "fd00:244::5, v1.2.3.4, 1.36"),
        ] {
            assert_eq!(text(ipv4), ipv6);
        }
        for ip in ["10.244.0.5", "127.0.0.1", "0.0.0.0"] {
            let ip: Ipv4Addr = ip.parse().expect("an address");
            assert_eq!((back(of(ip).into()), back(ip.into())), (ip, ip));
        }
    }
}
