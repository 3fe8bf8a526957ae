//! Which pod addresses of this node are free. Upstream leaves this to CNI's `host-local` plugin.

use ipnet::Ipv4Net;
use std::collections::HashSet;
use std::net::Ipv4Addr;

/// The host addresses of a range, handed out in turn.
#[derive(Debug)]
pub struct AddressPool {
    range: Ipv4Net,
    used: HashSet<Ipv4Addr>,
    last: Ipv4Addr,
}

impl AddressPool {
    /// All free.
    pub fn new(range: Ipv4Net) -> Self {
        Self {
            range,
            used: HashSet::new(),
            last: range.network(),
        }
    }

    /// The next free address behind the one that was handed out last; none if all are in use.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        let size = 1_u64 << (32 - self.range.prefix_len());
        let first = u32::from(self.range.network());
        let from = u64::from(u32::from(self.last) - first);
        // The first address of a range names the network and the last is its broadcast address.
        let free = (1..=size)
            .map(|step| (from + step) % size)
            .filter(|&at| at != 0 && at != size - 1)
            .filter_map(|at| Some(Ipv4Addr::from(first + u32::try_from(at).ok()?)))
            .find(|ip| !self.used.contains(ip))?;
        self.last = free;
        self.used.insert(free);
        Some(free)
    }

    /// Marks an address as used. Later ones are handed out behind it.
    pub fn take(&mut self, ip: Ipv4Addr) {
        if self.range.contains(&ip) && self.used.insert(ip) {
            self.last = self.last.max(ip);
        }
    }

    /// Marks an address as free.
    pub fn give_back(&mut self, ip: Ipv4Addr) {
        self.used.remove(&ip);
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
        let mut pool = pool("10.0.0.0/29");
        pool.take(Ipv4Addr::new(10, 0, 0, 1));
        let first = pool.allocate();
        assert_eq!(first, Some(Ipv4Addr::new(10, 0, 0, 2)));
        pool.give_back(Ipv4Addr::new(10, 0, 0, 2));
        let rest: Vec<_> = (0..4)
            .filter_map(|_| pool.allocate())
            .map(|ip| ip.octets()[3])
            .collect();
        assert_eq!(rest, [3, 4, 5, 6], "the one given back waits for its turn");
        assert_eq!(pool.allocate(), first, "then it comes round");
        assert_eq!(
            pool.allocate(),
            None,
            "network, broadcast and used addresses are not handed out"
        );
    }

    #[test]
    fn a_whole_16_bit_range_is_usable() {
        let mut pool = pool("10.244.0.0/16");
        assert_eq!((0..).map_while(|_: u32| pool.allocate()).count(), 65_534);
    }
}
