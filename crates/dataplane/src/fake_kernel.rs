//! A kernel in memory with the semantics of the packet rules: it takes commits as strictly as the real one, and
//! answers what happens to the first packet of a connection. However a Service chooses among its endpoints, here it
//! is a choice: what holds for each holds for all of them.
//!
//! A packet reads one map after the other while commits may come in between. [`trace`] therefore takes several states,
//! one for each commit, and explores every random choice and every moment at which the next state takes over.

mod policy;

use crate::class::{Class, Pick, Source};
use crate::frontend::{Commit, Frontend, Key, LOCAL_SLOTS, Operation, Protocol, State, Target, Value};
use crate::network_policy::Direction;
use crate::tables::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The maps, changed by commits.
#[derive(Debug, Clone, Default)]
pub struct FakeKernel {
    state: State,
}

/// Why a commit was refused. Nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The element is there with another value.
    Exists(Key),
    /// The element is not there.
    Missing(Key),
}

impl FakeKernel {
    /// A kernel with these elements.
    pub fn new(state: State) -> Self {
        Self { state }
    }

    /// The elements.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Applies all of a commit or nothing.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), Refusal> {
        let mut state = self.state.clone();
        for operation in &commit.operations {
            let key = operation.key();
            match operation {
                Operation::Add(_, value) => {
                    if state.insert(key, *value).is_some_and(|old| old != *value) {
                        return Err(Refusal::Exists(key));
                    }
                }
                Operation::Replace { to, .. } => {
                    state.insert(key, *to).ok_or(Refusal::Missing(key))?;
                }
                Operation::Delete(..) => {
                    state.remove(&key).ok_or(Refusal::Missing(key))?;
                }
            }
        }
        self.state = state;
        Ok(())
    }
}

/// The first packet of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Client.
    pub source: IpAddr,
    /// What the client connects to.
    pub destination: Target,
    /// Protocol.
    pub protocol: Protocol,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Sent to an endpoint.
    Sent {
        /// The endpoint.
        to: Target,
        /// Whether the endpoint sees an address of the node instead of the client's.
        source_rewritten: bool,
    },
    /// Answered with a reset or an ICMP error.
    Refused,
    /// Thrown away.
    Dropped,
    /// Thrown away because no NetworkPolicy of the isolated pod lets it through.
    Denied(Direction),
    /// Left alone: not to a Service.
    Untouched,
    /// Meant for a Service and then left alone, because an element was missing. This must not happen.
    Lost,
}

/// Which client is stuck to which endpoint id.
pub type Affinity = BTreeMap<(IpAddr, Frontend), u32>;

/// Everything that may happen to a packet that begins in the first of these states and ends in any of them.
pub fn trace(
    config: &Config,
    node_addresses: &BTreeSet<IpAddr>,
    states: &[&State],
    affinity: &Affinity,
    packet: &Packet,
) -> BTreeSet<Outcome> {
    let mut outcomes = BTreeSet::new();
    let mut choices: Vec<(usize, usize)> = Vec::new();
    loop {
        let mut depth = 0;
        let mut choose = |bound: usize| {
            if depth == choices.len() {
                choices.push((0, bound));
            }
            depth += 1;
            choices[depth - 1].0
        };
        outcomes.insert(connect(
            config,
            node_addresses,
            states,
            &mut affinity.clone(),
            packet,
            &mut choose,
        ));
        // The next path: the last choice that has an alternative takes it.
        while choices.last().is_some_and(|(choice, bound)| choice + 1 == *bound) {
            choices.pop();
        }
        match choices.last_mut() {
            Some((choice, _)) => *choice += 1,
            None => return outcomes,
        }
    }
}

/// What happens to a packet when `choose(n)` decides, by a number below `n`, what chance decides in the kernel.
pub fn connect(
    config: &Config,
    node_addresses: &BTreeSet<IpAddr>,
    states: &[&State],
    affinity: &mut Affinity,
    packet: &Packet,
    choose: &mut dyn FnMut(usize) -> usize,
) -> Outcome {
    connect_reading(
        config,
        node_addresses,
        states,
        affinity,
        packet,
        choose,
        &mut |_, _| (),
    )
}

/// The same, and `read` is told of each element that the packet looks for, in order, and what it finds.
pub fn connect_reading(
    config: &Config,
    node_addresses: &BTreeSet<IpAddr>,
    states: &[&State],
    affinity: &mut Affinity,
    packet: &Packet,
    choose: &mut dyn FnMut(usize) -> usize,
    read: &mut dyn FnMut(Key, Option<Value>),
) -> Outcome {
    let mut path = Path {
        states,
        affinity,
        source: packet.source,
        choose,
        read,
    };
    let outcome = services(config, node_addresses, packet, &mut path);
    let destination = match outcome {
        Outcome::Sent { to, .. } => to,
        Outcome::Untouched => packet.destination,
        _ => return outcome,
    };
    // What the node itself sends is let through, and what it is sent, but for what it serves in the place of pods.
    let ip = destination.ip();
    let to_node = node_addresses.contains(&ip) && !config.local_addresses.contains(&ip);
    if node_addresses.contains(&packet.source) || to_node {
        return outcome;
    }
    match path.denial(destination, packet.protocol) {
        Some(direction) => Outcome::Denied(direction),
        None => outcome,
    }
}

/// What the rules for Services make of a packet.
fn services(
    config: &Config,
    node_addresses: &BTreeSet<IpAddr>,
    packet: &Packet,
    path: &mut Path<'_>,
) -> Outcome {
    let from_pod = config.pod_cidrs.iter().any(|cidr| cidr.contains(&packet.source));
    let from_node = node_addresses.contains(&packet.source);
    let destination = packet.destination;
    let mut frontend = Frontend {
        address: destination.ip(),
        protocol: packet.protocol,
        port: destination.port(),
    };
    let mut class = path.class(Key::Service(frontend));
    if class.is_none() {
        if node_addresses.contains(&destination.ip()) {
            if destination.ip().is_loopback() {
                return Outcome::Untouched;
            }
            frontend = Frontend::node_port(destination.is_ipv6(), packet.protocol, destination.port());
            class = path.class(Key::Service(frontend));
        } else if path.lookup(Key::ClusterIp(destination.ip())).is_some() {
            return Outcome::Refused;
        } else if config
            .service_cidrs
            .iter()
            .any(|cidr| cidr.contains(&destination.ip()))
        {
            return Outcome::Dropped;
        }
    }
    let mut rewrite = false;
    loop {
        let pick = match class {
            None => return Outcome::Untouched,
            Some(Class::Reject) => return Outcome::Refused,
            Some(Class::RejectRestricted) if path.is_let_through(frontend) => return Outcome::Refused,
            Some(Class::RejectRestricted) => return Outcome::Dropped,
            Some(Class::Drop) => return Outcome::Dropped,
            Some(Class::Pick(pick)) => pick,
        };
        if pick.node_port != frontend.is_node_port() {
            return Outcome::Lost;
        }
        if pick.restricted && !path.is_let_through(frontend) {
            return Outcome::Dropped;
        }
        let mut first = 0;
        match pick.source {
            Source::Rewrite => rewrite = true,
            Source::RewriteOutside => rewrite |= !from_pod,
            Source::Keep if from_node || from_pod => {
                rewrite |= from_node;
                class = path.class(Key::Inside(frontend));
                if class.is_none() {
                    return Outcome::Lost;
                }
                continue;
            }
            Source::Keep if pick.count == 0 => return Outcome::Dropped,
            Source::Keep => first = LOCAL_SLOTS,
        }
        return match path.pick(frontend, &pick, first) {
            Some(to) => Outcome::Sent {
                to,
                source_rewritten: rewrite
                    || (to.ip() == packet.source && path.lookup(Key::Hairpin(to.ip())).is_some()),
            },
            None => Outcome::Lost,
        };
    }
}

/// A packet on its way.
struct Path<'a> {
    states: &'a [&'a State],
    affinity: &'a mut Affinity,
    source: IpAddr,
    choose: &'a mut dyn FnMut(usize) -> usize,
    read: &'a mut dyn FnMut(Key, Option<Value>),
}

impl Path<'_> {
    /// Reads an element in the state the packet is in, or in a later one, where it then stays.
    fn lookup(&mut self, key: Key) -> Option<Value> {
        if self.states.len() > 1 {
            let skipped = (self.choose)(self.states.len());
            self.states = &self.states[skipped..];
        }
        let value = self.states.first()?.get(&key).copied();
        (self.read)(key, value);
        value
    }

    fn class(&mut self, key: Key) -> Option<Class> {
        match self.lookup(key)? {
            Value::Class(class) => Some(class),
            _ => None,
        }
    }

    fn target(&mut self, key: Key) -> Option<Target> {
        match self.lookup(key)? {
            Value::Target(target) => Some(target),
            _ => None,
        }
    }

    /// Reads an element of a map of ranges, in which the elements do not overlap. The map is read at once, not key by
    /// key; `nothing` is what is told to have been looked for if none holds the packet.
    fn lookup_range(&mut self, holds: impl Fn(&Key) -> bool, nothing: Key) -> Option<Value> {
        if self.states.len() > 1 {
            let skipped = (self.choose)(self.states.len());
            self.states = &self.states[skipped..];
        }
        let mut elements = self.states.first()?.iter();
        let found = elements.find(|(key, _)| holds(key));
        let (key, value) = found.map_or((nothing, None), |(key, value)| (*key, Some(*value)));
        (self.read)(key, value);
        value
    }

    /// Whether a restricted frontend lets the client through.
    fn is_let_through(&mut self, frontend: Frontend) -> bool {
        let source = self.source;
        let holds =
            |key: &Key| matches!(key, Key::Source(of, range) if *of == frontend && range.contains(&source));
        self.lookup_range(holds, Key::Source(frontend, source.into()))
            .is_some()
    }

    fn slot(&mut self, pick: &Pick, first: u16) -> u16 {
        let choice = (self.choose)(usize::from(pick.slots()));
        first + u16::try_from(choice).expect("a choice is below the count")
    }

    fn pick(&mut self, frontend: Frontend, pick: &Pick, first: u16) -> Option<Target> {
        if pick.sticky.is_some() {
            // Twice: the endpoint that the client is stuck to may be gone.
            for _ in 0..2 {
                let slot = self.slot(pick, first);
                if let Some(Value::Id(candidate)) = self.lookup(Key::SlotId(frontend, slot)) {
                    let client = (self.source, frontend);
                    let id = *self.affinity.entry(client).or_insert(candidate);
                    if let Some(target) = self.target(Key::Endpoint(frontend, id)) {
                        return Some(target);
                    }
                    self.affinity.remove(&client);
                }
            }
        }
        let slot = self.slot(pick, first);
        self.target(Key::Slot(frontend, slot))
    }
}
