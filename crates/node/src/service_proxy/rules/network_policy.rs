//! The rules for NetworkPolicies: packets that the node passes on, and those to what it serves in the place of pods.
//!
//! Packets of known connections are let through first. Where no policy isolates either pod, a new connection costs
//! one lookup for each; else the peer's group becomes the packet's priority, and what the pod lets through is looked
//! up by it: as many lookups however many policies there are. The maps' names and meaning are those of
//! [`coracle_dataplane::PolicyKey`].

use super::{FRONTEND, HAIRPINS, NUMBER, Rules, TABLE, ZERO, and_xor};
use coracle_dataplane::Direction;
use coracle_kernel::net::nftables::{
    Batch, Comparison, CtKey, DataType, Direction as To, Expression, Field, Hook, HookKind, MetaKey,
    PayloadBase, Priority, Set, SetValue, Verdict,
};

/// (Direction, address of a pod) → number of its group.
pub(in super::super) const POLICY_PEERS: &str = "policy-peers";
/// (Direction, span of other addresses) → number of their group.
pub(in super::super) const POLICY_BLOCKS: &str = "policy-blocks";
/// (Isolated pod, group) that may connect to every port.
pub(in super::super) const POLICY_EVERYTHING: &str = "policy-everything";
/// The same for single ports.
pub(in super::super) const POLICY_PORTS: &str = "policy-ports";
/// The same for ranges of ports.
pub(in super::super) const POLICY_RANGES: &str = "policy-ranges";

/// The pods that are isolated.
pub(in super::super) const fn isolated_set(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "isolated-ingress",
        Direction::Egress => "isolated-egress",
    }
}

const fn policy_chain(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "policy-ingress",
        Direction::Egress => "policy-egress",
    }
}

/// Where new connections are judged that the node passes on; and those to what it serves.
const PASSED_ON: &str = "policy-passed-on";
const SERVED: &str = "policy-served";

/// `NF_CT_STATE_BIT` of established and of related packets.
const KNOWN: [u8; 4] = (1_u32 << 1 | 1 << 2).to_ne_bytes();
const INGRESS: [u8; 4] = Direction::Ingress.anyone().to_ne_bytes();
const EGRESS: [u8; 4] = Direction::Egress.anyone().to_ne_bytes();

const fn anyone(direction: Direction) -> &'static [u8; 4] {
    match direction {
        Direction::Ingress => &INGRESS,
        Direction::Egress => &EGRESS,
    }
}

impl Rules {
    pub(super) fn write_policy_sets(&self, batch: &mut Batch) {
        let [address, protocol, port] = FRONTEND;
        let peer = [Field::Priority, Field::SourceAddress];
        let allowed = [address, Field::Priority, protocol, port];
        let set = |name, key| Set {
            name,
            key: DataType(key),
            value: None,
            dynamic: None,
            ranges: false,
        };
        let value = Some(SetValue::Data(NUMBER));
        for set in [
            set(isolated_set(Direction::Ingress), &[Field::DestinationAddress]),
            set(isolated_set(Direction::Egress), &[Field::SourceAddress]),
            Set {
                value,
                ..set(POLICY_PEERS, &peer)
            },
            Set {
                value,
                ranges: true,
                ..set(POLICY_BLOCKS, &peer)
            },
            set(POLICY_EVERYTHING, &allowed[..2]),
            set(POLICY_PORTS, &allowed),
            Set {
                ranges: true,
                ..set(POLICY_RANGES, &allowed)
            },
        ] {
            batch.add_set(self.family, TABLE, &set);
        }
    }

    pub(super) fn write_policy_chains(&self, batch: &mut Batch) {
        for direction in Direction::BOTH {
            batch.add_chain(self.family, TABLE, policy_chain(direction));
            self.write_policy_chain(direction, batch);
        }
        for chain in [PASSED_ON, SERVED] {
            batch.add_chain(self.family, TABLE, chain);
            self.let_known_through(batch, chain);
            self.judge_if_isolated(batch, chain, Direction::Egress);
        }
        self.judge_if_isolated(batch, PASSED_ON, Direction::Ingress);

        // Behind the rewriting of destinations, before that of sources.
        let filter = Priority(0);
        batch.add_base_chain(
            self.family,
            TABLE,
            "forward",
            HookKind::Filter,
            Hook::Forward,
            filter,
        );
        let pass = Expression::Verdict(Verdict::Goto(PASSED_ON.into()));
        self.rule(batch, "forward", vec![pass]);
        // What a pod's own node sends it, and is sent, is no policy's business, but for what stands for pods.
        batch.add_base_chain(self.family, TABLE, "input", HookKind::Filter, Hook::Input, filter);
        for address in &self.local_addresses {
            let to = Verdict::Goto(SERVED.into());
            self.with_cidr(batch, "input", self.destination(0), &(*address).into(), to);
        }
    }

    fn let_known_through(&self, batch: &mut Batch, chain: &str) {
        let known = vec![
            Expression::Ct(CtKey::State, 0),
            and_xor(&KNOWN, &ZERO),
            Expression::Compare(0, Comparison::NotEqual, &ZERO),
            Expression::Verdict(Verdict::Accept),
        ];
        self.rule(batch, chain, known);
    }

    /// The address of the pod that a direction is about, and that of its peer.
    fn pod(&self, direction: Direction, to: u32) -> Expression<'static> {
        match direction {
            Direction::Ingress => self.destination(to),
            Direction::Egress => self.source(to),
        }
    }

    fn peer(&self, direction: Direction, to: u32) -> Expression<'static> {
        match direction {
            Direction::Ingress => self.source(to),
            Direction::Egress => self.destination(to),
        }
    }

    fn judge_if_isolated(&self, batch: &mut Batch, chain: &str, direction: Direction) {
        let isolated = vec![
            self.pod(direction, 0),
            Expression::Lookup {
                set: isolated_set(direction),
                key: 0,
                to: To::Membership,
            },
            Expression::Verdict(Verdict::Jump(policy_chain(direction).into())),
        ];
        self.rule(batch, chain, isolated);
    }

    /// Comes back if the packet is let through.
    fn write_policy_chain(&self, direction: Direction, batch: &mut Batch) {
        let chain = policy_chain(direction);
        let itself = vec![
            self.source(0),
            self.destination(self.address_registers()),
            Expression::Lookup {
                set: HAIRPINS,
                key: 0,
                to: To::Membership,
            },
            Expression::Verdict(Verdict::Return),
        ];
        self.rule(batch, chain, itself);

        // The group of the peer; a pod's is not looked for among the blocks, as the priority is another then. Where the
        // one takes the place of the other, a packet meets one of them: those of pods are looked at twice.
        let begin = || {
            vec![
                Expression::Immediate(0, anyone(direction)),
                Expression::SetMeta(MetaKey::Priority, 0),
            ]
        };
        self.rule(batch, chain, begin());
        // What everybody may, whatever the group. It is looked for on both sides of what the group may: a packet that
        // comes when the one takes the place of the other meets one of them.
        self.let_group_through(direction, batch);
        for set in [POLICY_PEERS, POLICY_BLOCKS, POLICY_PEERS] {
            let group = vec![
                Expression::Meta(MetaKey::Priority, 0),
                self.peer(direction, 1),
                Expression::Lookup {
                    set,
                    key: 0,
                    to: To::Register(0),
                },
                Expression::SetMeta(MetaKey::Priority, 0),
            ];
            self.rule(batch, chain, group);
        }
        self.let_group_through(direction, batch);
        self.rule(batch, chain, begin());
        self.let_group_through(direction, batch);
        self.rule(batch, chain, vec![Expression::Verdict(Verdict::Drop)]);
    }

    /// The wider is looked for first: what is narrower stays for a while when a wider element comes.
    fn let_group_through(&self, direction: Direction, batch: &mut Batch) {
        const DESTINATION_PORT_OFFSET: u32 = 2;
        let number = self.address_registers();
        for set in [POLICY_EVERYTHING, POLICY_RANGES, POLICY_PORTS] {
            let mut rule = vec![
                self.pod(direction, 0),
                Expression::Meta(MetaKey::Priority, number),
            ];
            if set != POLICY_EVERYTHING {
                rule.extend([
                    Expression::Meta(MetaKey::L4Protocol, number + 1),
                    Expression::Payload {
                        base: PayloadBase::Transport,
                        offset: DESTINATION_PORT_OFFSET,
                        length: 2,
                        to: number + 2,
                    },
                ]);
            }
            rule.extend([
                Expression::Lookup {
                    set,
                    key: 0,
                    to: To::Membership,
                },
                Expression::Immediate(0, &ZERO),
                Expression::SetMeta(MetaKey::Priority, 0),
                Expression::Verdict(Verdict::Return),
            ]);
            self.rule(batch, policy_chain(direction), rule);
        }
    }
}
