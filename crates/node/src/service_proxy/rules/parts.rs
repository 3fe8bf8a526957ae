//! What rules are put together from: packet fields in registers, networks, marks.

use super::{MASQUERADE_MARK, Rules, TABLE};
use coracle_kernel::net::nftables::{
    Batch, Comparison, Expression, Family, MetaKey, Nat, PayloadBase, Verdict,
};
use ipnet::IpNet;

const ALL_BUT_MARK: [u8; 4] = (!0x4000_u32).to_ne_bytes();

impl Rules {
    pub(super) fn rule(&self, batch: &mut Batch, chain: &str, expressions: Vec<Expression<'_>>) {
        batch.add_rule(self.family, TABLE, chain, &expressions);
    }

    pub(super) fn jump(&self, batch: &mut Batch, chain: &str, to: &str) {
        self.rule(batch, chain, vec![Expression::Verdict(Verdict::Jump(to.into()))]);
    }

    /// A rule for packets whose address, loaded into register 0, is in a network.
    pub(super) fn with_cidr(
        &self,
        batch: &mut Batch,
        chain: &str,
        load: Expression<'_>,
        cidr: &IpNet,
        verdict: Verdict,
    ) {
        let (network, mask) = match cidr {
            IpNet::V4(net) => (net.network().octets().to_vec(), net.netmask().octets().to_vec()),
            IpNet::V6(net) => (net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        };
        let zero = vec![0; mask.len()];
        let mut rule = vec![
            load,
            Expression::Bitwise {
                register: 0,
                mask: &mask,
                xor: &zero,
            },
            Expression::Compare(0, Comparison::Equal, &network),
        ];
        rule.push(Expression::Verdict(verdict));
        self.rule(batch, chain, rule);
    }

    /// How many registers an address takes.
    pub(super) fn address_registers(&self) -> u32 {
        match self.family {
            Family::Ip => 1,
            Family::Ip6 => 4,
        }
    }

    /// How many registers a frontend takes.
    pub(super) fn frontend_registers(&self) -> u32 {
        self.address_registers() + 2
    }

    pub(super) fn source(&self, to: u32) -> Expression<'static> {
        self.address(12, 8, to)
    }

    pub(super) fn destination(&self, to: u32) -> Expression<'static> {
        self.address(16, 24, to)
    }

    pub(super) fn address(&self, ipv4_offset: u32, ipv6_offset: u32, to: u32) -> Expression<'static> {
        let (offset, length) = match self.family {
            Family::Ip => (ipv4_offset, 4),
            Family::Ip6 => (ipv6_offset, 16),
        };
        Expression::Payload {
            base: PayloadBase::Network,
            offset,
            length,
            to,
        }
    }

    /// Loads the frontend that a packet goes to. A NodePort's address is cleared: it is the same on every address.
    pub(super) fn frontend(&self, node_port: bool, at: u32) -> Vec<Expression<'static>> {
        const DESTINATION_PORT_OFFSET: u32 = 2;
        let mut load = vec![self.destination(at)];
        if node_port {
            let clear = match self.family {
                Family::Ip => &[0; 4][..],
                Family::Ip6 => &[0; 16][..],
            };
            load.push(Expression::Bitwise {
                register: at,
                mask: clear,
                xor: clear,
            });
        }
        let protocol = at + self.address_registers();
        load.push(Expression::Meta(MetaKey::L4Protocol, protocol));
        load.push(Expression::Payload {
            base: PayloadBase::Transport,
            offset: DESTINATION_PORT_OFFSET,
            length: 2,
            to: protocol + 1,
        });
        load
    }

    /// To the endpoint in register 0 and behind it.
    pub(super) fn dnat(&self) -> Expression<'static> {
        Expression::Nat {
            kind: Nat::Destination,
            address: 0,
            port: self.address_registers(),
        }
    }
}

/// Asks for the source of the packet to be rewritten.
pub(super) fn set_mark() -> Vec<Expression<'static>> {
    vec![
        Expression::Meta(MetaKey::Mark, 0),
        and_xor(&ALL_BUT_MARK, &MASQUERADE_MARK),
        Expression::SetMeta(MetaKey::Mark, 0),
    ]
}

/// Of register 0.
pub(super) fn and_xor<'a>(mask: &'a [u8; 4], xor: &'a [u8; 4]) -> Expression<'a> {
    Expression::Bitwise {
        register: 0,
        mask,
        xor,
    }
}
