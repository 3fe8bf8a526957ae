//! Ranges of addresses. Upstream: `k8s.io/utils/net`.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address at this place of a range; 0 is the one that names the range itself. None beyond its end.
/// Upstream: `GetIndexedIP`.
pub fn indexed_ip(range: IpNet, index: u32) -> Option<IpAddr> {
    let ip = match range.network() {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().checked_add(index)?).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().checked_add(index.into())?).into(),
    };
    range.contains(&ip).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_start_of_the_range() {
        for (range, index, expected) in [
            ("10.96.0.0/12", 1, Some("10.96.0.1")),
            ("10.96.7.7/12", 10, Some("10.96.0.10")),
            ("fd00:10:96::/112", 10, Some("fd00:10:96::a")),
            ("192.0.2.0/31", 2, None),
            ("255.255.255.255/32", 1, None),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", 1, None),
        ] {
            let ip = indexed_ip(range.parse().expect("a range"), index);
            assert_eq!(ip.map(|ip| ip.to_string()).as_deref(), expected, "{range}");
        }
    }
}
