//! The packet rules: the table's sets, maps and chains, and the chain of each class. Their meaning is that of
//! `coracle_dataplane::fake_kernel`, which the tests hold them to.
//!
//! Rules are written when the table is made, and one chain when the first Service of a class comes. After that only
//! elements change. `nft list table ip coracle` prints all of it in nftables' language, and reads it back; in IPv6 all
//! but session affinity, for which nft 1.0.6 runs out of registers.
//!
//! A packet's priority is the scratch register between two lookups; it is reset before the packet leaves. The mark
//! 0x4000 asks for its source to be rewritten, as in upstream's proxies.

mod class_chain;
mod network_policy;
mod parts;
mod pod_sources;

use coracle_dataplane::{Balancing, Class, Config, Pick, Source};
use coracle_kernel::net::nftables::{
    Batch, Comparison, CtKey, DataType, Direction, Expression, Family, Fib, Field, Hook, HookKind, MetaKey,
    Priority, Reject, Set, SetValue, Verdict,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub(super) use network_policy::{
    POLICY_BLOCKS, POLICY_EVERYTHING, POLICY_PEERS, POLICY_PORTS, POLICY_RANGES, isolated_set,
};
use parts::{and_xor, set_mark};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const TABLE: &str = "coracle";
pub(super) const FRONTENDS: &str = "frontends";
pub(super) const INSIDE: &str = "inside";
pub(super) const SLOTS: &str = "slots";
pub(super) const SLOT_IDS: &str = "slot-ids";
pub(super) const ENDPOINTS: &str = "endpoints";
pub(super) const HAIRPINS: &str = "hairpins";
/// Clients that restricted frontends let through.
pub(super) const SOURCES: &str = "sources";
pub(super) const CLUSTER_IPS: &str = "cluster-ips";
/// Number of a class → its chain.
pub(super) const CLASSES: &str = "classes";
/// The same for the classes that [`INSIDE`] names: from the chains that lead there, all classes would be a loop.
pub(super) const INSIDE_CLASSES: &str = "inside-classes";
const AFFINITY: &str = "affinity";
/// Clients with session affinity that are remembered at most. A client beyond that is served without affinity.
const AFFINITY_SIZE: u32 = 65_536;

/// Bound of the slot numbers, for the type of the key only.
const SLOT_MODULUS: u32 = 0x1_0000;
const FRONTEND: [Field; 3] = [Field::DestinationAddress, Field::Protocol, Field::DestinationPort];
const TARGET: DataType<'_> = DataType(&[Field::DestinationAddress, Field::DestinationPort]);
const NUMBER: DataType<'_> = DataType(&[Field::Priority]);

// Numbers in registers are in host byte order.
const ZERO: [u8; 4] = [0; 4];
const ALL: [u8; 4] = [0xff; 4];
const MASQUERADE_MARK: [u8; 4] = 0x4000_u32.to_ne_bytes();
/// `RTN_LOCAL`.
const LOCAL_ADDRESS: [u8; 4] = 2_u32.to_ne_bytes();
/// `IPS_DST_NAT`.
const DESTINATION_REWRITTEN: [u8; 4] = (1_u32 << 5).to_ne_bytes();
const TCP: u8 = 6;

/// How the remark on the table begins while the Services are in the chains of iptables.
const BY_IPTABLES: &str = "Pods of Kubernetes, its Services are in iptables";

/// Whether the remark on a table says so.
pub(super) fn is_by_iptables(comment: &str) -> bool {
    comment.starts_with(BY_IPTABLES)
}

/// Writes the rules of one address family.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub family: Family,
    pod_cidrs: Vec<IpNet>,
    /// Addresses that only Services have.
    unknown: Vec<IpNet>,
    /// What the node serves itself in the place of pods.
    local_addresses: Vec<IpAddr>,
    by_iptables: bool,
}

impl Rules {
    pub fn new(family: Family, config: &Config) -> Self {
        let of_family = |cidrs: &[IpNet]| -> Vec<IpNet> {
            let same = cidrs
                .iter()
                .filter(|cidr| cidr.addr().is_ipv6() == (family == Family::Ip6));
            same.copied().collect()
        };
        let mut unknown = config.service_cidrs.clone();
        if config.by_iptables {
            // The tables refuse each of these that is in use, port by port.
            unknown.extend(&config.load_balancer_pool);
        }
        Self {
            family,
            pod_cidrs: of_family(&config.pod_cidrs),
            unknown: of_family(&unknown),
            local_addresses: config
                .local_addresses
                .iter()
                .filter(|address| address.is_ipv6() == (family == Family::Ip6))
                .copied()
                .collect(),
            by_iptables: config.by_iptables,
        }
    }

    /// The remark on the table: tells rules of another version or configuration apart.
    pub fn comment(&self) -> String {
        let mut batch = Batch::new();
        self.write_sets(&mut batch);
        self.write_chains(&mut batch);
        for node_port in [false, true] {
            for source in [Source::Rewrite, Source::RewriteOutside, Source::Keep] {
                for sticky in [None, Some(1)] {
                    let pick = Pick {
                        node_port,
                        source,
                        count: 1,
                        sticky,
                        balancing: Balancing::Random,
                        restricted: sticky.is_some(),
                    };
                    self.write_class(Class::Pick(pick), &mut batch);
                }
            }
        }
        for balancing in [
            Balancing::RoundRobin(1),
            Balancing::SourceHash,
            Balancing::DestinationHash,
        ] {
            let pick = Pick {
                node_port: false,
                source: Source::Rewrite,
                count: 1,
                sticky: None,
                balancing,
                restricted: false,
            };
            self.write_class(Class::Pick(pick), &mut batch);
        }
        self.write_class(Class::RejectRestricted, &mut batch);
        let what = if self.by_iptables {
            BY_IPTABLES
        } else {
            "Services of Kubernetes"
        };
        format!("{what}; rules {:016x}", batch.fingerprint())
    }

    /// Everything but the chains of classes.
    pub fn write(&self, batch: &mut Batch) {
        self.write_sets(batch);
        self.write_chains(batch);
    }

    fn write_sets(&self, batch: &mut Batch) {
        let [address, protocol, port] = FRONTEND;
        let slot = [
            address,
            protocol,
            port,
            Field::Random {
                modulus: SLOT_MODULUS,
            },
        ];
        let id = [address, protocol, port, Field::Priority];
        let client = [address, protocol, port, Field::SourceAddress];
        let map = |name, key, value| Set {
            name,
            key: DataType(key),
            value: Some(SetValue::Data(value)),
            dynamic: None,
            ranges: false,
        };
        let verdicts = |name| Set {
            name,
            key: NUMBER,
            value: Some(SetValue::Verdict),
            dynamic: None,
            ranges: false,
        };
        let plain = |name, key| Set {
            name,
            key: DataType(key),
            value: None,
            dynamic: None,
            ranges: false,
        };
        for set in [
            Set {
                ranges: true,
                ..plain(SOURCES, &client)
            },
            map(FRONTENDS, &FRONTEND, NUMBER),
            map(INSIDE, &FRONTEND, NUMBER),
            map(SLOTS, &slot, TARGET),
            map(SLOT_IDS, &slot, NUMBER),
            map(ENDPOINTS, &id, TARGET),
            Set {
                dynamic: Some(AFFINITY_SIZE),
                ..map(AFFINITY, &client, NUMBER)
            },
            verdicts(CLASSES),
            verdicts(INSIDE_CLASSES),
            plain(HAIRPINS, &[Field::SourceAddress, Field::DestinationAddress]),
            plain(CLUSTER_IPS, &[Field::DestinationAddress]),
        ] {
            batch.add_set(self.family, TABLE, &set);
        }
        self.write_policy_sets(batch);
    }

    fn write_chains(&self, batch: &mut Batch) {
        const CHAINS: [&str; 9] = [
            "refuse",
            "discard",
            "rewrite-source",
            "rewrite-outside",
            "to-inside",
            "to-node-port-inside",
            "to-node-port",
            "services",
            "egress",
        ];
        for chain in CHAINS {
            batch.add_chain(self.family, TABLE, chain);
        }
        let dnat = Priority(-100);
        let snat = Priority(100);
        for (chain, hook, priority) in [
            ("prerouting", Hook::Prerouting, dnat),
            ("output", Hook::Output, dnat),
            ("postrouting", Hook::Postrouting, snat),
        ] {
            batch.add_base_chain(self.family, TABLE, chain, HookKind::Nat, hook, priority);
        }
        self.write_dispatch(batch);
        self.write_postrouting(batch);
        self.write_pod_sources(batch);
        self.write_policy_chains(batch);
    }

    /// From a packet's destination to the chain of its class.
    fn write_dispatch(&self, batch: &mut Batch) {
        self.rule(
            batch,
            "refuse",
            vec![
                Expression::Meta(MetaKey::L4Protocol, 0),
                Expression::Compare(0, Comparison::Equal, &[TCP]),
                Expression::Reject(Reject::TcpReset),
            ],
        );
        self.rule(batch, "refuse", vec![Expression::Reject(Reject::PortUnreachable)]);
        self.rule(batch, "discard", vec![Expression::Verdict(Verdict::Drop)]);

        self.rule(batch, "rewrite-source", set_mark());
        for cidr in &self.pod_cidrs {
            self.with_cidr(batch, "rewrite-outside", self.source(0), cidr, Verdict::Return);
        }
        self.rule(batch, "rewrite-outside", set_mark());

        self.dispatch(batch, "to-inside", false, INSIDE, INSIDE_CLASSES);
        self.dispatch(batch, "to-node-port-inside", true, INSIDE, INSIDE_CLASSES);
        self.write_loopback_return(batch);
        self.dispatch(batch, "to-node-port", true, FRONTENDS, CLASSES);

        self.dispatch(batch, "services", false, FRONTENDS, CLASSES);
        self.rule(
            batch,
            "services",
            vec![
                Expression::Fib(Fib::DestinationType, 0),
                Expression::Compare(0, Comparison::Equal, &LOCAL_ADDRESS),
                Expression::Verdict(Verdict::Goto("to-node-port".into())),
            ],
        );
        self.rule(
            batch,
            "services",
            vec![
                self.destination(0),
                Expression::Lookup {
                    set: CLUSTER_IPS,
                    key: 0,
                    to: Direction::Membership,
                },
                Expression::Verdict(Verdict::Goto("refuse".into())),
            ],
        );
        // An address that no Service has yet is not refused: a client that knows it already tries again.
        // With iptables it is its chains that know, and they come later.
        let unknown = if self.by_iptables {
            "postrouting"
        } else {
            "services"
        };
        for cidr in &self.unknown {
            self.with_cidr(batch, unknown, self.destination(0), cidr, Verdict::Drop);
        }
        for chain in ["prerouting", "output"] {
            self.rule(
                batch,
                chain,
                vec![Expression::Verdict(Verdict::Jump("services".into()))],
            );
        }
    }

    /// NodePorts are on every address of the node but the loopback ones.
    fn write_loopback_return(&self, batch: &mut Batch) {
        let loopback = match self.family {
            Family::Ip => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
            Family::Ip6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
        };
        self.with_cidr(
            batch,
            "to-node-port",
            self.destination(0),
            &loopback,
            Verdict::Return,
        );
    }

    /// Two rules: the class of the frontend becomes the packet's priority; the priority chooses the chain.
    fn dispatch(&self, batch: &mut Batch, chain: &str, node_port: bool, map: &str, classes: &str) {
        let mut class = self.frontend(node_port, 0);
        class.push(Expression::Lookup {
            set: map,
            key: 0,
            to: Direction::Register(0),
        });
        class.push(Expression::SetMeta(MetaKey::Priority, 0));
        self.rule(batch, chain, class);
        self.rule(
            batch,
            chain,
            vec![
                Expression::Meta(MetaKey::Priority, 0),
                Expression::Lookup {
                    set: classes,
                    key: 0,
                    to: Direction::Verdict,
                },
            ],
        );
    }

    /// The way out: scratch removed, sources rewritten.
    fn write_postrouting(&self, batch: &mut Batch) {
        let is_dnat = || {
            vec![
                Expression::Ct(CtKey::Status, 0),
                and_xor(&DESTINATION_REWRITTEN, &ZERO),
                Expression::Compare(0, Comparison::NotEqual, &ZERO),
            ]
        };
        let mut reset_scratch = is_dnat();
        reset_scratch.extend([
            Expression::Immediate(0, &ZERO),
            Expression::SetMeta(MetaKey::Priority, 0),
        ]);
        self.rule(batch, "postrouting", reset_scratch);

        let mut hairpin = is_dnat();
        hairpin.extend([
            self.source(0),
            self.destination(self.address_registers()),
            Expression::Lookup {
                set: HAIRPINS,
                key: 0,
                to: Direction::Membership,
            },
            Expression::Masquerade,
        ]);
        self.rule(batch, "postrouting", hairpin);

        self.rule(
            batch,
            "postrouting",
            vec![
                Expression::Meta(MetaKey::Mark, 0),
                and_xor(&MASQUERADE_MARK, &ZERO),
                Expression::Compare(0, Comparison::Equal, &MASQUERADE_MARK),
                Expression::Meta(MetaKey::Mark, 0),
                and_xor(&ALL, &MASQUERADE_MARK),
                Expression::SetMeta(MetaKey::Mark, 0),
                Expression::Masquerade,
            ],
        );

        // Outside the pod network nobody knows the way back to a pod.
        for cidr in &self.pod_cidrs {
            let to = Verdict::Goto("egress".into());
            self.with_cidr(batch, "postrouting", self.source(0), cidr, to);
            self.with_cidr(batch, "egress", self.destination(0), cidr, Verdict::Return);
        }
        self.rule(batch, "egress", vec![Expression::Masquerade]);
    }
}
