//! What happens to a packet to a frontend. Frontends of the same class share one chain of packet rules.

use std::fmt;
use std::str::FromStr;

/// What happens to a packet to a frontend. Its text form is the name of its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Refused at once: no endpoints anywhere.
    Reject,
    /// The same for the clients that [`crate::Key::Source`] names; others are dropped, as they are with endpoints.
    RejectRestricted,
    /// Dropped: no endpoints on this node, and others do not count.
    Drop,
    /// Sent to one of the endpoints.
    Pick(Pick),
}

/// How to choose an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pick {
    /// Whether the frontend is a NodePort.
    pub node_port: bool,
    /// What happens to the client's address.
    pub source: Source,
    /// Number of endpoints. Zero only with [`Source::Keep`], where clients inside the cluster may still be served.
    pub count: u16,
    /// Seconds for which a client stays with an endpoint: session affinity ClientIP.
    pub sticky: Option<u32>,
    /// How the endpoint of a new connection is chosen.
    pub balancing: Balancing,
    /// Whether only clients are let through that [`crate::Key::Source`] names.
    pub restricted: bool,
}

/// How the endpoint of a new connection is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Balancing {
    /// By chance, each as likely as the others.
    #[default]
    Random,
    /// One after the other. The number tells frontends apart: each has a chain, and so a turn, of its own.
    RoundRobin(u32),
    /// By the client's address: always the same one while the endpoints are the same.
    SourceHash,
    /// By the address that the client connects to.
    DestinationHash,
    /// By the connections that the endpoints have; of those that are equally good, one after the other. The number is
    /// as in [`Balancing::RoundRobin`].
    ByLoad(Load, u32),
}

/// What makes one endpoint better than another, as the schedulers of IPVS have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Load {
    /// The fewest connections (`lc`).
    LeastConnections,
    /// The fewest connections, the new one included, for its weight (`sed`).
    ShortestExpectedDelay,
    /// None at all, or else the shortest expected delay (`nq`).
    NeverQueue,
}

impl Load {
    /// All of them.
    pub const ALL: [Load; 3] = [
        Load::LeastConnections,
        Load::ShortestExpectedDelay,
        Load::NeverQueue,
    ];

    /// As the annotation has it.
    pub fn name(self) -> &'static str {
        match self {
            Load::LeastConnections => "least-connections",
            Load::ShortestExpectedDelay => "shortest-expected-delay",
            Load::NeverQueue => "never-queue",
        }
    }
}

impl fmt::Display for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Balancing::Random => Ok(()),
            Balancing::RoundRobin(turn) => write!(f, "-round-robin-{turn:08x}"),
            Balancing::SourceHash => f.write_str(SOURCE_HASH),
            Balancing::DestinationHash => f.write_str(DESTINATION_HASH),
            Balancing::ByLoad(load, turn) => write!(f, "-{}-{turn:08x}", load.name()),
        }
    }
}

impl Balancing {
    /// The same with another number, if it has one.
    pub(crate) fn with_turn(self, turn: u32) -> Self {
        match self {
            Balancing::RoundRobin(_) => Balancing::RoundRobin(turn),
            Balancing::ByLoad(load, _) => Balancing::ByLoad(load, turn),
            Balancing::Random | Balancing::SourceHash | Balancing::DestinationHash => self,
        }
    }

    /// Whether it is of one frontend only, and so is its chain.
    pub fn is_of_one_frontend(self) -> bool {
        matches!(self, Balancing::RoundRobin(_) | Balancing::ByLoad(..))
    }

    /// Takes its text off the end of a name.
    fn strip(name: &str) -> Result<(&str, Self), NotAClass> {
        if let Some(rest) = name.strip_suffix(SOURCE_HASH) {
            return Ok((rest, Balancing::SourceHash));
        }
        if let Some(rest) = name.strip_suffix(DESTINATION_HASH) {
            return Ok((rest, Balancing::DestinationHash));
        }
        let by_load = Load::ALL.map(|load| (load.name(), Balancing::ByLoad(load, 0)));
        for (kind, balancing) in [("round-robin", Balancing::RoundRobin(0))]
            .into_iter()
            .chain(by_load)
        {
            if let Some((rest, turn)) = name.split_once(&format!("-{kind}-")) {
                let turn = u32::from_str_radix(turn, 16).map_err(|_| NotAClass)?;
                return Ok((rest, balancing.with_turn(turn)));
            }
        }
        Ok((name, Balancing::Random))
    }
}

pub(crate) fn slots_by_load(endpoints: u16) -> u16 {
    const ENOUGH: u16 = 32;
    match endpoints {
        0 | 1 => endpoints,
        _ => endpoints * (ENOUGH / endpoints).max(1),
    }
}

const REFUSE: &str = "refuse";
const DISCARD: &str = "discard";
const SOURCE_HASH: &str = "-source-hash";
const DESTINATION_HASH: &str = "-destination-hash";
const RESTRICTED: &str = "-restricted";

/// What happens to the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Rewritten if the client is no pod: cluster IPs.
    RewriteOutside,
    /// Always rewritten: NodePorts, external IPs, load balancers.
    Rewrite,
    /// Kept: external traffic policy Local. Clients inside the cluster take the way of [`crate::Key::Inside`].
    Keep,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Class::Reject => f.write_str(REFUSE),
            Class::RejectRestricted => write!(f, "{REFUSE}{RESTRICTED}"),
            Class::Drop => f.write_str(DISCARD),
            Class::Pick(pick) => {
                write!(f, "{}-{}", pick.kind(), pick.count)?;
                if let Some(seconds) = pick.sticky {
                    write!(f, "-sticky-{seconds}")?;
                }
                let restricted = if pick.restricted { RESTRICTED } else { "" };
                write!(f, "{}{restricted}", pick.balancing)
            }
        }
    }
}

impl Pick {
    /// How many slots the endpoints are in. Those of a frontend that is balanced by load are in several each, or in
    /// none: enough slots for shares that are nearly right.
    pub fn slots(&self) -> u16 {
        match self.balancing {
            Balancing::ByLoad(..) => slots_by_load(self.count),
            _ => self.count,
        }
    }

    fn kind(&self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, node_port, source)| (*node_port, *source) == (self.node_port, self.source))
            .map_or("", |(name, ..)| name)
    }
}

const KINDS: [(&str, bool, Source); 6] = [
    ("cluster-ip", false, Source::RewriteOutside),
    ("external", false, Source::Rewrite),
    ("external-local", false, Source::Keep),
    ("node-port-inside", true, Source::RewriteOutside),
    ("node-port", true, Source::Rewrite),
    ("node-port-local", true, Source::Keep),
];

/// The text is not the name of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAClass;

impl FromStr for Class {
    type Err = NotAClass;

    fn from_str(text: &str) -> Result<Self, NotAClass> {
        let (rest, restricted) = match text.strip_suffix(RESTRICTED) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        match (rest, restricted) {
            (REFUSE, false) => return Ok(Class::Reject),
            (REFUSE, true) => return Ok(Class::RejectRestricted),
            (DISCARD, false) => return Ok(Class::Drop),
            _ => (),
        }
        let (text, balancing) = Balancing::strip(rest)?;
        let (rest, sticky) = match text.split_once("-sticky-") {
            Some((rest, seconds)) => (rest, Some(seconds.parse().map_err(|_| NotAClass)?)),
            None => (text, None),
        };
        let (kind, count) = rest.rsplit_once('-').ok_or(NotAClass)?;
        let &(_, node_port, source) = KINDS.iter().find(|(name, ..)| *name == kind).ok_or(NotAClass)?;
        Ok(Class::Pick(Pick {
            node_port,
            source,
            count: count.parse().map_err(|_| NotAClass)?,
            sticky,
            balancing,
            restricted,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let mut classes = vec![Class::Reject, Class::RejectRestricted, Class::Drop];
        for (_, node_port, source) in KINDS {
            for sticky in [None, Some(10_800)] {
                for balancing in [
                    Balancing::Random,
                    Balancing::RoundRobin(0xbeef),
                    Balancing::SourceHash,
                    Balancing::DestinationHash,
                    Balancing::ByLoad(Load::LeastConnections, 1),
                    Balancing::ByLoad(Load::ShortestExpectedDelay, 2),
                    Balancing::ByLoad(Load::NeverQueue, 3),
                ] {
                    for restricted in [false, true] {
                        classes.push(Class::Pick(Pick {
                            node_port,
                            source,
                            count: 12,
                            sticky,
                            balancing,
                            restricted,
                        }));
                    }
                }
            }
        }
        for class in classes {
            assert_eq!(class.to_string().parse(), Ok(class), "{class}");
        }
        for text in [
            "",
            "services",
            "node-port",
            "cluster-ip-x",
            "cluster-ip-3-sticky-",
            "cluster-ip-3-round-robin-x",
            "cluster-ip-3-never-queue",
            "cluster-ip-restricted",
            "discard-restricted",
        ] {
            assert_eq!(text.parse::<Class>(), Err(NotAClass), "{text}");
        }
    }
}
