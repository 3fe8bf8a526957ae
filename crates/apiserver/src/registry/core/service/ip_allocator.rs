//! Cluster IPs of one family. Upstream: `pkg/registry/core/service/ipallocator`.

use super::offsets::{Offsets, Owner};
use ipnet::IpNet;
use parking_lot::Mutex;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// Why a cluster IP was not given. The texts are upstream's; they end up in a field error.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IpError {
    /// Another Service has it.
    #[error("provided IP is already allocated")]
    Allocated,
    /// Outside of the Service network, or its network or broadcast address.
    #[error("the provided IP ({0}) is not in the valid range. The range of valid IPs is {1}")]
    NotInRange(IpAddr, IpNet),
    /// None is left.
    #[error("range is full")]
    Full,
}

/// The family of an address, as Services name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpFamily {
    /// `IPv4`.
    V4,
    /// `IPv6`.
    V6,
}

impl IpFamily {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The other family.
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// `IPv4` or `IPv6`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// From the wire's name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Hands out the addresses of one Service network, each once.
///
/// Never the network's own address nor, in IPv4, the broadcast address. Ranges wider than 2^63 addresses are
/// used up to there.
pub struct IpAllocator {
    network: IpNet,
    random: fn() -> u64,
    taken: Mutex<Offsets>,
}

impl IpAllocator {
    /// All addresses of the network are free.
    pub fn new(network: IpNet) -> Self {
        let network = network.trunc();
        let host_bits = u32::from(network.max_prefix_len() - network.prefix_len());
        let total: u64 = 1 << host_bits.min(63);
        let usable = match network {
            IpNet::V4(_) => total.saturating_sub(2),
            IpNet::V6(_) => total.saturating_sub(1),
        };
        let band = Offsets::static_band(total, 16, 256);
        Self {
            network,
            random: rand::random,
            taken: Mutex::new(Offsets::new(usable, band)),
        }
    }

    /// Chooses among free addresses by these numbers.
    pub fn choosing(self, random: fn() -> u64) -> Self {
        Self { random, ..self }
    }

    /// The network.
    pub fn network(&self) -> IpNet {
        self.network
    }

    /// Its family.
    pub fn family(&self) -> IpFamily {
        IpFamily::of(self.network.addr())
    }

    /// The address of the `kubernetes` Service: the first of the network.
    pub fn first(&self) -> IpAddr {
        self.address(0)
    }

    /// Takes a certain address.
    pub fn allocate(&self, address: IpAddr, owner: &Owner) -> Result<(), IpError> {
        let outside = || IpError::NotInRange(address, self.network);
        let offset = self.offset(address).ok_or_else(outside)?;
        let mut taken = self.taken.lock();
        if taken.take(offset, owner) {
            Ok(())
        } else if taken.contains(offset) {
            Err(IpError::Allocated)
        } else {
            Err(outside())
        }
    }

    /// Takes a random free address.
    pub fn allocate_next(&self, owner: &Owner) -> Result<IpAddr, IpError> {
        let offset = self.taken.lock().take_next((self.random)(), owner);
        offset.map(|o| self.address(o)).ok_or(IpError::Full)
    }

    /// Gives an address back; addresses that are free, another's or outside are ignored.
    pub fn release(&self, address: IpAddr, owner: &Owner) {
        if let Some(offset) = self.offset(address) {
            self.taken.lock().release(offset, owner);
        }
    }

    /// Whether the address is taken.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.offset(address)
            .is_some_and(|o| self.taken.lock().contains(o))
    }

    /// Offset 0 is the address after the network's own.
    fn offset(&self, address: IpAddr) -> Option<u64> {
        if !self.network.contains(&address) {
            return None;
        }
        let distance = bits(address) - bits(self.network.addr());
        u64::try_from(distance.checked_sub(1)?).ok()
    }

    fn address(&self, offset: u64) -> IpAddr {
        let address = bits(self.network.addr()) + 1 + u128::from(offset);
        match self.network {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(
                u32::try_from(address).expect("an address in an IPv4 network has 32 bits"),
            )),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(address)),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn allocator(network: &str) -> IpAllocator {
        IpAllocator::new(network.parse().unwrap())
    }

    fn a() -> Owner {
        Owner::from("a")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn errors_are_upstreams() {
        let ips = allocator("10.96.0.0/12");
        assert_eq!(ips.first(), ip("10.96.0.1"));
        ips.allocate(ip("10.96.0.10"), &a()).unwrap();
        assert_eq!(
            ips.allocate(ip("10.96.0.10"), &a()).unwrap_err().to_string(),
            "provided IP is already allocated"
        );
        for outside in [
            "10.96.0.0",
            "10.111.255.255",
            "10.112.0.1",
            "192.168.0.1",
            "fd00::1",
        ] {
            assert_eq!(
                ips.allocate(ip(outside), &a()).unwrap_err().to_string(),
                format!(
                    "the provided IP ({outside}) is not in the valid range. The range of valid IPs is 10.96.0.0/12"
                )
            );
        }
        ips.allocate(ip("10.111.255.254"), &a()).unwrap();
    }

    #[test]
    fn random_addresses_come_from_the_upper_band() {
        let ips = allocator("10.96.0.0/24");
        for _ in 0..200 {
            let IpAddr::V4(address) = ips.allocate_next(&a()).unwrap() else {
                panic!("an IPv4 network gives IPv4 addresses")
            };
            assert!((17..=254).contains(&address.octets()[3]), "{address}");
        }
    }

    #[test]
    fn small_and_wide_networks() {
        let ips = allocator("10.0.0.0/30");
        let all: HashSet<IpAddr> = (0..2).map(|_| ips.allocate_next(&a()).unwrap()).collect();
        assert_eq!(all, [ip("10.0.0.1"), ip("10.0.0.2")].into());
        assert_eq!(ips.allocate_next(&a()), Err(IpError::Full));
        assert_eq!(allocator("10.0.0.1/32").allocate_next(&a()), Err(IpError::Full));

        let wide = allocator("fd00::/64");
        let address = wide.allocate_next(&a()).unwrap();
        assert!(wide.network().contains(&address));
        assert!(wide.contains(address));
        wide.release(address, &a());
        assert!(!wide.contains(address));
    }

    #[test]
    fn concurrent_callers_never_get_the_same_address() {
        let ips = allocator("10.96.0.0/22");
        let all: Vec<IpAddr> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| std::iter::from_fn(|| ips.allocate_next(&a()).ok()).collect::<Vec<_>>())
                })
                .collect();
            workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
        });
        assert_eq!(all.len(), 1022);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 1022);
    }
}
