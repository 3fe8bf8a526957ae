//! The chain of a class: from a frontend to one of its endpoints.

use super::{AFFINITY, ENDPOINTS, LOCAL_ADDRESS, Rules, SLOT_IDS, SLOTS, SOURCES, TABLE};
use coracle_dataplane::{Balancing, Class, LOCAL_SLOTS, Pick, Source};
use coracle_kernel::net::nftables::{
    Batch, Comparison, Direction, Expression, Fib, MetaKey, SetUpdate, Verdict,
};

impl Rules {
    /// The chain of a class. Those of [`Class::Reject`] and [`Class::Drop`] are there from the start.
    pub fn write_class(&self, class: Class, batch: &mut Batch) {
        let chain = class.to_string();
        let pick = match class {
            Class::Reject | Class::Drop => return,
            Class::RejectRestricted => {
                batch.add_chain(self.family, TABLE, &chain);
                self.drop_strangers(batch, &chain, false);
                let refuse = Verdict::Goto(Class::Reject.to_string());
                self.rule(batch, &chain, vec![Expression::Verdict(refuse)]);
                return;
            }
            Class::Pick(pick) => pick,
        };
        batch.add_chain(self.family, TABLE, &chain);
        if pick.restricted {
            self.drop_strangers(batch, &chain, pick.node_port);
        }
        let mut first = 0;
        match pick.source {
            Source::Rewrite => self.jump(batch, &chain, "rewrite-source"),
            Source::RewriteOutside => self.jump(batch, &chain, "rewrite-outside"),
            Source::Keep => {
                first = u32::from(LOCAL_SLOTS);
                let inside = if pick.node_port {
                    "to-node-port-inside"
                } else {
                    "to-inside"
                };
                for to in [
                    Verdict::Jump("rewrite-source".into()),
                    Verdict::Goto(inside.into()),
                ] {
                    self.rule(
                        batch,
                        &chain,
                        vec![
                            Expression::Fib(Fib::SourceType, 0),
                            Expression::Compare(0, Comparison::Equal, &LOCAL_ADDRESS),
                            Expression::Verdict(to),
                        ],
                    );
                }
                for cidr in &self.pod_cidrs {
                    let to = Verdict::Goto(inside.into());
                    self.with_cidr(batch, &chain, self.source(0), cidr, to);
                }
                if pick.count == 0 {
                    self.rule(batch, &chain, vec![Expression::Verdict(Verdict::Drop)]);
                    return;
                }
            }
        }
        if let Some(seconds) = pick.sticky {
            // Twice: the endpoint that the client is stuck to may be gone.
            self.write_sticky(batch, &chain, &pick, first, seconds);
            self.write_sticky(batch, &chain, &pick, first, seconds);
        }
        let mut choose = self.frontend(pick.node_port, 0);
        choose.extend(self.slot(&pick, first));
        choose.extend([
            Expression::Lookup {
                set: SLOTS,
                key: 0,
                to: Direction::Register(0),
            },
            self.dnat(),
        ]);
        self.rule(batch, &chain, choose);
    }

    /// Only clients in the source ranges of the frontend go on.
    fn drop_strangers(&self, batch: &mut Batch, chain: &str, node_port: bool) {
        let mut stranger = self.frontend(node_port, 0);
        stranger.extend([
            self.source(self.frontend_registers()),
            Expression::Lookup {
                set: SOURCES,
                key: 0,
                to: Direction::Absence,
            },
            Expression::Verdict(Verdict::Drop),
        ]);
        self.rule(batch, chain, stranger);
    }

    /// Loads the slot of an endpoint behind a frontend in the first registers.
    fn slot(&self, pick: &Pick, offset: u32) -> Vec<Expression<'static>> {
        let modulus = u32::from(pick.slots());
        let to = self.frontend_registers();
        let hash = |address| {
            vec![
                address,
                Expression::Hash {
                    key: to,
                    length: 4 * self.address_registers(),
                    modulus,
                    offset,
                    to,
                },
            ]
        };
        match pick.balancing {
            Balancing::Random => vec![Expression::Random { modulus, offset, to }],
            // User space keeps in the slots whoever is best.
            Balancing::RoundRobin(_) | Balancing::ByLoad(..) => {
                vec![Expression::Counter { modulus, offset, to }]
            }
            Balancing::SourceHash => hash(self.source(to)),
            Balancing::DestinationHash => hash(self.destination(to)),
        }
    }

    /// A candidate, by chance or as the Service says; it is remembered, unless one is remembered already, whose time begins anew; what is
    /// remembered now is where the packet goes, if it is still there; else it is forgotten.
    fn write_sticky(&self, batch: &mut Batch, chain: &str, pick: &Pick, first: u32, seconds: u32) {
        let frontend = || self.frontend(pick.node_port, 0);
        let next = self.frontend_registers();
        let lookup = |set| Expression::Lookup {
            set,
            key: 0,
            to: Direction::Register(0),
        };
        let client = || {
            let mut client = frontend();
            client.push(self.source(next));
            client
        };
        let remember = |update, timeout| {
            let mut rule = client();
            let value = next + self.address_registers();
            rule.push(Expression::Meta(MetaKey::Priority, value));
            rule.push(Expression::Dynamic {
                set: AFFINITY,
                update,
                key: 0,
                value,
                timeout,
            });
            rule
        };

        let mut candidate = frontend();
        candidate.extend(self.slot(pick, first));
        candidate.extend([lookup(SLOT_IDS), Expression::SetMeta(MetaKey::Priority, 0)]);
        self.rule(batch, chain, candidate);

        let milliseconds = u64::from(seconds) * 1000;
        self.rule(
            batch,
            chain,
            remember(SetUpdate::InsertOrRefresh, Some(milliseconds)),
        );

        let mut read_back = client();
        read_back.extend([lookup(AFFINITY), Expression::SetMeta(MetaKey::Priority, 0)]);
        self.rule(batch, chain, read_back);

        let mut send = frontend();
        send.extend([
            Expression::Meta(MetaKey::Priority, next),
            lookup(ENDPOINTS),
            self.dnat(),
        ]);
        self.rule(batch, chain, send);

        self.rule(batch, chain, remember(SetUpdate::Delete, None));
    }
}
