//! What happens to a packet to a frontend. Frontends of the same class share one chain of packet rules.

use std::fmt;
use std::str::FromStr;

/// What happens to a packet to a frontend. Its text form is the name of its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Refused at once: no endpoints anywhere.
    Reject,
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
}

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
            Class::Reject => f.write_str("refuse"),
            Class::Drop => f.write_str("discard"),
            Class::Pick(pick) => {
                write!(f, "{}-{}", pick.kind(), pick.count)?;
                match pick.sticky {
                    Some(seconds) => write!(f, "-sticky-{seconds}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Pick {
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
        match text {
            "refuse" => return Ok(Class::Reject),
            "discard" => return Ok(Class::Drop),
            _ => (),
        }
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
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let mut classes = vec![Class::Reject, Class::Drop];
        for (_, node_port, source) in KINDS {
            for sticky in [None, Some(10_800)] {
                classes.push(Class::Pick(Pick {
                    node_port,
                    source,
                    count: 12,
                    sticky,
                }));
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
        ] {
            assert_eq!(text.parse::<Class>(), Err(NotAClass), "{text}");
        }
    }
}
