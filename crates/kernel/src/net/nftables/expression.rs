//! The expressions that rules are made of. Registers are the 32-bit ones, numbered from 0.

use super::super::netlink::Messages;
use super::{DATA_MAX_BYTES, Family};

/// Where packet bytes are counted from.
#[derive(Debug, Clone, Copy)]
pub enum PayloadBase {
    /// IP header.
    Network,
    /// TCP, UDP or SCTP header.
    Transport,
}

/// Packet metadata.
#[derive(Debug, Clone, Copy)]
pub enum MetaKey {
    /// Queueing priority; free to use as scratch until the packet leaves.
    Priority,
    /// The packet mark.
    Mark,
    /// IP protocol number.
    L4Protocol,
    /// Name of the device that the packet came in from. Compared with fewer bytes it is a prefix.
    InputName,
}

impl MetaKey {
    fn number(self) -> u32 {
        match self {
            MetaKey::Priority => 2,
            MetaKey::Mark => 3,
            MetaKey::L4Protocol => 16,
            MetaKey::InputName => 6,
        }
    }
}

/// Connection tracking state of the packet.
#[derive(Debug, Clone, Copy)]
pub enum CtKey {
    /// What the packet is to its connection: one bit of `NF_CT_STATE_BIT`.
    State,
    /// Status bits.
    Status,
}

impl CtKey {
    fn number(self) -> u32 {
        match self {
            CtKey::State => 0,
            CtKey::Status => 2,
        }
    }
}

/// How to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
}

/// Where a rule sends the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Throw it away.
    Drop,
    /// Let it pass this hook, as far as this table is concerned.
    Accept,
    /// Leave this chain.
    Return,
    /// To a chain, and back behind this rule.
    Jump(String),
    /// To a chain, and not back.
    Goto(String),
}

impl Verdict {
    pub(crate) fn write(&self, m: &mut Messages) {
        const DATA_VERDICT: u16 = 2;
        const CODE: u16 = 1;
        const CHAIN: u16 = 2;
        let (code, chain) = match self {
            Verdict::Drop => (0i32, None),
            Verdict::Accept => (1, None),
            Verdict::Return => (-5, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
        };
        m.nest(DATA_VERDICT, |m| {
            m.be32(CODE, code.cast_unsigned());
            if let Some(chain) = chain {
                m.string(CHAIN, chain);
            }
        });
    }

    pub(crate) fn read(code: u32, chain: Option<&str>) -> Option<Self> {
        Some(match (code.cast_signed(), chain) {
            (0, _) => Verdict::Drop,
            (1, _) => Verdict::Accept,
            (-5, _) => Verdict::Return,
            (-3, Some(chain)) => Verdict::Jump(chain.to_owned()),
            (-4, Some(chain)) => Verdict::Goto(chain.to_owned()),
            _ => return None,
        })
    }
}

/// Refuse a packet.
#[derive(Debug, Clone, Copy)]
pub enum Reject {
    /// ICMP port unreachable.
    PortUnreachable,
    /// TCP reset.
    TcpReset,
}

/// What to look up in the routing table.
#[derive(Debug, Clone, Copy)]
pub enum Fib {
    /// Type of the source address, such as local.
    SourceType,
    /// Type of the destination address.
    DestinationType,
    /// Whether the source address is routed out over the device that the packet came in from: 0 if not.
    SourceRouted,
}

/// Which address to rewrite.
#[derive(Debug, Clone, Copy)]
pub enum Nat {
    /// The destination.
    Destination,
}

/// Which way a dynamic set changes.
#[derive(Debug, Clone, Copy)]
pub enum SetUpdate {
    /// Insert, or refresh the time of what is there without changing its value.
    InsertOrRefresh,
    /// Remove.
    Delete,
}

/// Direction of a lookup's result.
#[derive(Debug, Clone, Copy)]
pub enum Direction {
    /// Into a register.
    Register(u32),
    /// The verdict of the packet.
    Verdict,
    /// Only whether it is there.
    Membership,
    /// Only whether it is not there.
    Absence,
}

/// One step of a rule. A step that does not match ends the rule.
#[derive(Debug, Clone)]
pub enum Expression<'a> {
    /// Load packet bytes.
    Payload {
        /// Counted from here.
        base: PayloadBase,
        /// First byte.
        offset: u32,
        /// How many.
        length: u32,
        /// Into this register.
        to: u32,
    },
    /// Load metadata.
    Meta(MetaKey, u32),
    /// Set metadata from a register.
    SetMeta(MetaKey, u32),
    /// Load connection tracking state.
    Ct(CtKey, u32),
    /// Load a constant.
    Immediate(u32, &'a [u8]),
    /// Compare a register with a constant.
    Compare(u32, Comparison, &'a [u8]),
    /// `register = register & mask ^ xor`.
    Bitwise {
        /// The register.
        register: u32,
        /// And this.
        mask: &'a [u8],
        /// Then exclusive-or this.
        xor: &'a [u8],
    },
    /// Look up a key that begins in register `key`.
    Lookup {
        /// Set or map.
        set: &'a str,
        /// First register of the key.
        key: u32,
        /// Where the result goes.
        to: Direction,
    },
    /// Load `random() % modulus + offset`.
    Random {
        /// Bound.
        modulus: u32,
        /// Added to it.
        offset: u32,
        /// Into this register.
        to: u32,
    },
    /// Load `n % modulus + offset`, where n is one more each time this step is run.
    Counter {
        /// Bound.
        modulus: u32,
        /// Added to it.
        offset: u32,
        /// Into this register.
        to: u32,
    },
    /// Load `hash(key) % modulus + offset`: the same for the same key, on every machine.
    Hash {
        /// First register of the key.
        key: u32,
        /// Length of the key in bytes.
        length: u32,
        /// Bound.
        modulus: u32,
        /// Added to it.
        offset: u32,
        /// Into this register.
        to: u32,
    },
    /// Rewrite an address and a port with registers; ends the rule and the chain.
    Nat {
        /// Which.
        kind: Nat,
        /// Register of the address.
        address: u32,
        /// Register of the port.
        port: u32,
    },
    /// Rewrite the source to an address of the outgoing device, with a random port.
    Masquerade,
    /// Refuse the packet.
    Reject(Reject),
    /// Load what the routing table knows of an address; its type is an `RTN_…`.
    Fib(Fib, u32),
    /// Decide.
    Verdict(Verdict),
    /// Change a dynamic map from the packet path.
    Dynamic {
        /// The map.
        set: &'a str,
        /// How.
        update: SetUpdate,
        /// First register of the key.
        key: u32,
        /// Register of the value.
        value: u32,
        /// Lifetime in milliseconds.
        timeout: Option<u64>,
    },
}

/// Number of a 32-bit register (NFT_REG32_00 is 8).
fn register(index: u32) -> u32 {
    8 + index
}

fn constant(m: &mut Messages, kind: u16, bytes: &[u8]) {
    const DATA_VALUE: u16 = 1;
    debug_assert!(bytes.len() <= DATA_MAX_BYTES);
    m.nest(kind, |m| m.attribute(DATA_VALUE, bytes));
}

impl Expression<'_> {
    fn name(&self) -> &'static str {
        match self {
            Expression::Payload { .. } => "payload",
            Expression::Meta(..) | Expression::SetMeta(..) => "meta",
            Expression::Ct(..) => "ct",
            Expression::Immediate(..) | Expression::Verdict(_) => "immediate",
            Expression::Compare(..) => "cmp",
            Expression::Bitwise { .. } => "bitwise",
            Expression::Lookup { .. } => "lookup",
            Expression::Random { .. } | Expression::Counter { .. } => "numgen",
            Expression::Hash { .. } => "hash",
            Expression::Nat { .. } => "nat",
            Expression::Masquerade => "masq",
            Expression::Reject(_) => "reject",
            Expression::Fib(..) => "fib",
            Expression::Dynamic { .. } => "dynset",
        }
    }

    /// Appends the expression to the list of a rule.
    pub(crate) fn write(&self, m: &mut Messages, family: Family) {
        const LIST_ELEMENT: u16 = 1;
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        m.nest(LIST_ELEMENT, |m| {
            m.string(NAME, self.name());
            m.nest(DATA, |m| self.write_data(m, family));
        });
    }

    fn write_data(&self, m: &mut Messages, family: Family) {
        match self {
            Expression::Payload {
                base,
                offset,
                length,
                to,
            } => {
                let base = match base {
                    PayloadBase::Network => 1,
                    PayloadBase::Transport => 2,
                };
                m.be32(1, register(*to));
                m.be32(2, base);
                m.be32(3, *offset);
                m.be32(4, *length);
            }
            Expression::Meta(key, to) => {
                m.be32(1, register(*to));
                m.be32(2, key.number());
            }
            Expression::SetMeta(key, from) => {
                m.be32(2, key.number());
                m.be32(3, register(*from));
            }
            Expression::Ct(key, to) => {
                m.be32(1, register(*to));
                m.be32(2, key.number());
            }
            Expression::Immediate(to, bytes) => {
                m.be32(1, register(*to));
                constant(m, 2, bytes);
            }
            Expression::Compare(from, comparison, bytes) => {
                m.be32(1, register(*from));
                m.be32(2, u32::from(*comparison == Comparison::NotEqual));
                constant(m, 3, bytes);
            }
            Expression::Bitwise {
                register: at,
                mask,
                xor,
            } => {
                m.be32(1, register(*at));
                m.be32(2, register(*at));
                m.be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                constant(m, 4, mask);
                constant(m, 5, xor);
            }
            Expression::Lookup { set, key, to } => {
                const VERDICT_REGISTER: u32 = 0;
                const INVERTED: u32 = 1;
                m.string(1, set);
                m.be32(2, register(*key));
                match to {
                    Direction::Register(to) => m.be32(3, register(*to)),
                    Direction::Verdict => m.be32(3, VERDICT_REGISTER),
                    Direction::Membership => (),
                    Direction::Absence => m.be32(5, INVERTED),
                }
            }
            Expression::Random { modulus, offset, to } => {
                const RANDOM: u32 = 1;
                m.be32(1, register(*to));
                m.be32(2, *modulus);
                m.be32(3, RANDOM);
                m.be32(4, *offset);
            }
            Expression::Counter { modulus, offset, to } => {
                const INCREMENTAL: u32 = 0;
                m.be32(1, register(*to));
                m.be32(2, *modulus);
                m.be32(3, INCREMENTAL);
                m.be32(4, *offset);
            }
            Expression::Hash {
                key,
                length,
                modulus,
                offset,
                to,
            } => {
                // Any constant does: without one the kernel takes another for each rule.
                const SEED: u32 = 0x636f_7261;
                m.be32(1, register(*key));
                m.be32(2, register(*to));
                m.be32(3, *length);
                m.be32(4, *modulus);
                m.be32(5, SEED);
                m.be32(6, *offset);
            }
            Expression::Nat {
                kind: Nat::Destination,
                address,
                port,
            } => {
                const DESTINATION: u32 = 1;
                m.be32(1, DESTINATION);
                m.be32(2, u32::from(family.number()));
                m.be32(3, register(*address));
                m.be32(5, register(*port));
            }
            Expression::Masquerade => {
                const FULLY_RANDOM_PORT: u32 = 1 << 4;
                m.be32(1, FULLY_RANDOM_PORT);
            }
            Expression::Reject(how) => {
                let unreachable = match family {
                    Family::Ip => 3,
                    Family::Ip6 => 4,
                };
                let (kind, code) = match how {
                    Reject::PortUnreachable => (0, unreachable),
                    Reject::TcpReset => (1, 0),
                };
                m.be32(1, kind);
                m.attribute(2, &[code]);
            }
            Expression::Fib(which, to) => {
                const DEVICE: u32 = 1;
                const ADDRESS_TYPE: u32 = 3;
                const SOURCE: u32 = 1;
                const DESTINATION: u32 = 2;
                const INPUT_DEVICE: u32 = 8;
                const PRESENCE: u32 = 32;
                let (result, flags) = match which {
                    Fib::SourceType => (ADDRESS_TYPE, SOURCE),
                    Fib::DestinationType => (ADDRESS_TYPE, DESTINATION),
                    Fib::SourceRouted => (DEVICE, SOURCE | INPUT_DEVICE | PRESENCE),
                };
                m.be32(1, register(*to));
                m.be32(2, result);
                m.be32(3, flags);
            }
            Expression::Verdict(verdict) => {
                m.be32(1, 0);
                m.nest(2, |m| verdict.write(m));
            }
            Expression::Dynamic {
                set,
                update,
                key,
                value,
                timeout,
            } => {
                m.string(1, set);
                m.be32(
                    3,
                    match update {
                        SetUpdate::InsertOrRefresh => 1,
                        SetUpdate::Delete => 2,
                    },
                );
                m.be32(4, register(*key));
                m.be32(5, register(*value));
                if let Some(timeout) = timeout {
                    m.attribute(6, &timeout.to_be_bytes());
                }
            }
        }
    }
}
