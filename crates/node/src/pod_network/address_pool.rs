//! Which pod addresses of this node are free. Upstream leaves this to CNI's `host-local` plugin.

use ipnet::IpNet;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// More addresses than this nobody hands out: what lies behind them in a large range is not used.
const MOST: u32 = 1 << 30;

/// The host addresses of a range, handed out in turn.
#[derive(Debug)]
pub struct AddressPool {
    range: IpNet,
    /// How many addresses the range has, as far as they are used.
    size: u32,
    /// Places of addresses, counted from the start of the range.
    used: HashSet<u32>,
    last: u32,
}

impl AddressPool {
    /// All free.
    pub fn new(range: IpNet) -> Self {
        let bits = u32::from(range.max_prefix_len() - range.prefix_len());
        Self {
            range: range.trunc(),
            size: 1_u32.checked_shl(bits).map_or(MOST, |size| size.min(MOST)),
            used: HashSet::new(),
            last: 0,
        }
    }

    /// The range.
    pub fn range(&self) -> IpNet {
        self.range
    }

    /// The next free address behind the one that was handed out last; none if all are in use.
    pub fn allocate(&mut self) -> Option<IpAddr> {
        // The first address of a range names the network; the last is IPv4's broadcast address.
        let free = (1..=self.size)
            .map(|step| (self.last + step) % self.size)
            .filter(|&at| at != 0 && at != self.size - 1)
            .find(|at| !self.used.contains(at))?;
        self.last = free;
        self.used.insert(free);
        Some(self.address(free))
    }

    /// Marks an address as used. Later ones are handed out behind it.
    pub fn take(&mut self, ip: IpAddr) {
        if let Some(at) = self.place(ip)
            && self.used.insert(at)
        {
            self.last = self.last.max(at);
        }
    }

    /// Marks an address as free.
    pub fn give_back(&mut self, ip: IpAddr) {
        if let Some(at) = self.place(ip) {
            self.used.remove(&at);
        }
    }

    fn address(&self, at: u32) -> IpAddr {
        match self.range.addr() {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + at).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + u128::from(at)).into(),
        }
    }

    /// None for an address that is not of this range.
    fn place(&self, ip: IpAddr) -> Option<u32> {
        let distance = match (ip, self.range.addr()) {
            (IpAddr::V4(ip), IpAddr::V4(first)) => ip.to_bits().checked_sub(first.to_bits())?,
            (IpAddr::V6(ip), IpAddr::V6(first)) => {
                u32::try_from(ip.to_bits().checked_sub(first.to_bits())?).ok()?
            }
            _ => return None,
        };
        (distance < self.size).then_some(distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: &str) -> AddressPool {
        AddressPool::new(range.parse().expect("a range"))
    }

    #[test]
    fn addresses_come_round_in_order() {
        for (range, prefix) in [("10.0.0.0/29", "10.0.0."), ("fd00::/125", "fd00::")] {
            let mut pool = pool(range);
            let ip = |last: u8| -> IpAddr { format!("{prefix}{last}").parse().expect("an address") };
            pool.take(ip(1));
            let first = pool.allocate();
            assert_eq!(first, Some(ip(2)));
            pool.give_back(ip(2));
            let rest: Vec<_> = (0..4).filter_map(|_| pool.allocate()).collect();
            let expected = [3, 4, 5, 6].map(ip);
            assert_eq!(rest, expected, "the one given back waits for its turn");
            assert_eq!(pool.allocate(), first, "then it comes round");
            assert_eq!(
                pool.allocate(),
                None,
                "the first, the last and used addresses are not handed out"
            );
        }
    }

    #[test]
    fn a_whole_16_bit_range_is_usable() {
        let mut pool = pool("10.244.0.0/16");
        assert_eq!((0..).map_while(|_: u32| pool.allocate()).count(), 65_534);
    }

    #[test]
    fn of_a_large_range_the_start_is_used() {
        for range in ["fd00:10:244::/64", "fd00::/8", "::/0"] {
            let mut pool = pool(range);
            let first = pool.allocate().expect("an address");
            assert!(first.to_string().ends_with("::1"), "{first}");
            pool.take("ffff::1".parse().expect("an address"));
            let second = pool.allocate().expect("another");
            assert!(second.to_string().ends_with("::2"), "{second}");
        }
    }
}
