//! The rules for NetworkPolicies: from the addresses of a packet behind Services to whether it is let through.

use super::Path;
use crate::frontend::{Key, Protocol, Target, Value};
use crate::network_policy::{Direction, PolicyKey, Ports};
use std::net::IpAddr;

impl Path<'_> {
    /// The end of the connection that forbids the packet, if one does.
    pub(super) fn denial(&mut self, destination: Target, protocol: Protocol) -> Option<Direction> {
        let (source, server) = (self.source, destination.ip());
        let port = destination.port();
        let ends = [
            (Direction::Egress, source, server),
            (Direction::Ingress, server, source),
        ];
        for (direction, pod, peer) in ends {
            if !self.has(PolicyKey::Isolated(direction, pod))
                || (pod == peer && self.lookup(Key::Hairpin(pod)).is_some())
            {
                continue;
            }
            // What everybody may is looked for on both sides of what the group may: a packet that comes when the one
            // takes the place of the other meets one of them.
            let anyone = direction.anyone();
            if self.is_let_through_by(pod, anyone, protocol, port) {
                continue;
            }
            let number = self.group(direction, peer);
            let is_allowed = self.is_let_through_by(pod, number, protocol, port)
                || self.is_let_through_by(pod, anyone, protocol, port);
            if !is_allowed {
                return Some(direction);
            }
        }
        None
    }

    fn has(&mut self, key: PolicyKey) -> bool {
        self.lookup(Key::Policy(key)).is_some()
    }

    /// The number of the group of a peer; a pod's is not looked for among the blocks. Where the one takes the place of
    /// the other, a packet meets one of them: those of pods are looked at twice.
    fn group(&mut self, direction: Direction, peer: IpAddr) -> u32 {
        let of_pod = Key::Policy(PolicyKey::Peer(direction, peer));
        if let Some(Value::Id(number)) = self.lookup(of_pod) {
            return number;
        }
        let holds = |key: &Key| {
            matches!(key, Key::Policy(PolicyKey::Block(of, first, last))
                if *of == direction && first.is_ipv6() == peer.is_ipv6() && (first..=last).contains(&&peer))
        };
        let nothing = Key::Policy(PolicyKey::Block(direction, peer, peer));
        let found = self.lookup_range(holds, nothing).or_else(|| self.lookup(of_pod));
        match found {
            Some(Value::Id(number)) => number,
            _ => direction.anyone(),
        }
    }

    /// The wider is looked for first: what is narrower stays for a while when a wider element comes.
    fn is_let_through_by(&mut self, pod: IpAddr, number: u32, protocol: Protocol, port: u16) -> bool {
        let allowed = |ports| PolicyKey::Allowed(pod, number, ports);
        if self.has(allowed(Ports::All)) {
            return true;
        }
        let holds = |key: &Key| {
            matches!(key, Key::Policy(PolicyKey::Allowed(ip, of, Ports::Range(same, first, last)))
                if *ip == pod && *of == number && *same == protocol && (*first..=*last).contains(&port))
        };
        let nothing = Key::Policy(allowed(Ports::Range(protocol, port, port)));
        self.lookup_range(holds, nothing).is_some() || self.has(allowed(Ports::One(protocol, port)))
    }
}
