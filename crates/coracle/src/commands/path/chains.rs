//! The way of a packet to a cluster IP through the chains of iptables, as `iptables-save` prints them, for
//! `--proxy-mode iptables`. Only what the chains of Services say is understood: addresses, protocol, port, and that
//! chance or an earlier choice may decide.

use coracle_dataplane::fake_kernel::Packet;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

const SERVICES: &str = "KUBE-SERVICES";
const MARK_MASQ: &str = "KUBE-MARK-MASQ";

/// Rules by table and chain, each in words.
type Chains<'a> = BTreeMap<(&'a str, &'a str), Vec<Rule<'a>>>;

/// A rule without the name of its chain.
#[derive(Debug)]
struct Rule<'a> {
    text: &'a str,
    words: Vec<&'a str>,
}

/// Where a packet may go, and the rules on the way.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Table, chain and rule.
    pub steps: Vec<(String, String)>,
    /// The endpoints, each with whether it sees an address of the node.
    pub endpoints: Vec<(SocketAddr, bool)>,
    /// What happens to a packet that goes nowhere: the rule's target, `REJECT` or `DROP`.
    pub verdict: Option<String>,
}

/// Walks the chains. Of what chance decides, all is told.
pub fn walk(saved: &str, packet: &Packet) -> Way {
    let chains = parse(saved);
    let mut way = Way::default();
    enter(&chains, SERVICES, packet, false, &mut way);
    if way.endpoints.is_empty() {
        let rules = chains.get(&("filter", SERVICES)).into_iter().flatten();
        let decides =
            |rule: &&Rule<'_>| rule.takes(packet) && matches!(rule.option("-j"), Some("REJECT" | "DROP"));
        if let Some(rule) = rules.into_iter().find(decides) {
            way.verdict = rule.option("-j").map(str::to_owned);
            way.steps
                .push((format!("filter {SERVICES}"), rule.text.to_owned()));
        }
    }
    way
}

fn parse(saved: &str) -> Chains<'_> {
    let mut chains = Chains::new();
    let mut table = "";
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some((chain, text)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
            let rule = Rule {
                text,
                words: words(text),
            };
            chains.entry((table, chain)).or_default().push(rule);
        }
    }
    chains
}

/// Words, and remarks in quotes as one.
fn words(text: &str) -> Vec<&str> {
    let mut is_quoted = false;
    let parts = text.split(move |c: char| {
        is_quoted ^= c == '"';
        c == ' ' && !is_quoted
    });
    parts.filter(|word| !word.is_empty()).collect()
}

/// Follows a chain of the table `nat`. Whether the packet surely comes no further.
fn enter(chains: &Chains<'_>, chain: &str, packet: &Packet, mut is_rewritten: bool, way: &mut Way) -> bool {
    for rule in chains.get(&("nat", chain)).into_iter().flatten() {
        let Some(target) = rule.option("-j").filter(|_| rule.takes(packet)) else {
            continue;
        };
        way.steps.push((format!("nat {chain}"), rule.text.to_owned()));
        let is_over = match target {
            MARK_MASQ => {
                is_rewritten = true;
                false
            }
            "DNAT" => {
                let to = rule.option("--to-destination").and_then(|to| to.parse().ok());
                way.endpoints.extend(to.map(|to| (to, is_rewritten)));
                true
            }
            chain => enter(chains, chain, packet, is_rewritten, way),
        };
        if is_over && !rule.may_pass() {
            return true;
        }
    }
    false
}

impl<'a> Rule<'a> {
    fn position(&self, name: &str) -> Option<usize> {
        self.words.iter().position(|word| *word == name)
    }

    fn option(&self, name: &str) -> Option<&'a str> {
        self.words.get(self.position(name)? + 1).copied()
    }

    /// Whether it is about this packet, as far as addresses, protocol and port say.
    fn takes(&self, packet: &Packet) -> bool {
        let is_in = |name: &str, ip: IpAddr| {
            let Some(position) = self.position(name) else {
                return true;
            };
            let is_negated = position
                .checked_sub(1)
                .is_some_and(|before| self.words[before] == "!");
            let range = self.option(name).and_then(|range| range.parse::<IpNet>().ok());
            range.is_some_and(|range| range.contains(&ip) != is_negated)
        };
        let protocol = packet.protocol.to_string().to_lowercase();
        let port = packet.destination.port().to_string();
        is_in("-d", packet.destination.ip())
            && is_in("-s", packet.source)
            && self.option("-p").is_none_or(|of| of == protocol)
            && self.option("--dport").is_none_or(|of| of == port)
            // A cluster IP is no address of the node.
            && self.position("--dst-type").is_none()
    }

    /// Whether chance, or whom a client had before, decides if it takes a packet.
    fn may_pass(&self) -> bool {
        ["statistic", "recent"]
            .iter()
            .any(|decides| self.option("-m") == Some(decides) || self.words.contains(decides))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_dataplane::Protocol;

    const SAVED: &str = r#"*filter
:KUBE-SERVICES - [0:0]
-A KUBE-SERVICES -d 10.96.0.83/32 -p tcp -m comment --comment "default/nobody has no endpoints" -m tcp --dport 80 -j REJECT --reject-with tcp-reset
COMMIT
*nat
-A KUBE-SERVICES -d 10.96.0.80/32 -p tcp -m comment --comment "default/echo cluster IP -j KUBE-NO" -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SERVICES -d 10.96.0.81/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-B
-A KUBE-SERVICES -m addrtype --dst-type LOCAL ! -d 127.0.0.0/8 -j KUBE-NODEPORTS
-A KUBE-SVC-A -d 10.96.0.80/32 ! -s 10.244.0.0/16 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-A -m comment --comment "default/echo -> 10.244.0.5:8080" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-5
-A KUBE-SVC-A -m comment --comment "default/echo -> 10.244.0.6:8080" -j KUBE-SEP-6
-A KUBE-SVC-A -j KUBE-SEP-NEVER
-A KUBE-SEP-5 -s 10.244.0.5/32 -m comment --comment "default/echo" -j KUBE-MARK-MASQ
-A KUBE-SEP-5 -p tcp -m tcp -j DNAT --to-destination 10.244.0.5:8080
-A KUBE-SEP-6 -s 10.244.0.6/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-6 -p tcp -m tcp -j DNAT --to-destination 10.244.0.6:8080
-A KUBE-SEP-NEVER -p tcp -j DNAT --to-destination 10.244.0.7:8080
COMMIT
"#;

    fn to(destination: &str, source: &str) -> Way {
        let packet = Packet {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address and a port"),
            protocol: Protocol::Tcp,
        };
        walk(SAVED, &packet)
    }

    fn endpoints(list: &[(&str, bool)]) -> Vec<(SocketAddr, bool)> {
        let parsed = list
            .iter()
            .map(|(to, rewritten)| (to.parse().expect("an address"), *rewritten));
        parsed.collect()
    }

    #[test]
    fn all_that_chance_may_choose_and_nothing_behind() {
        let way = to("10.96.0.80:80", "10.244.0.9");
        assert_eq!(
            way.endpoints,
            endpoints(&[("10.244.0.5:8080", false), ("10.244.0.6:8080", false)])
        );
        let chains: Vec<&str> = way.steps.iter().map(|(chain, _)| chain.as_str()).collect();
        assert_eq!(
            chains,
            [
                "nat KUBE-SERVICES",
                "nat KUBE-SVC-A",
                "nat KUBE-SEP-5",
                "nat KUBE-SVC-A",
                "nat KUBE-SEP-6"
            ]
        );
        // One that may reach itself, and one from outside the pod network.
        let own = to("10.96.0.80:80", "10.244.0.5").endpoints;
        assert_eq!(
            own,
            endpoints(&[("10.244.0.5:8080", true), ("10.244.0.6:8080", false)])
        );
        let outside = to("10.96.0.80:80", "192.0.2.1").endpoints;
        assert!(outside.iter().all(|(_, rewritten)| *rewritten), "{outside:?}");
    }

    #[test]
    fn a_service_without_endpoints_and_none_at_all() {
        let refused = to("10.96.0.83:80", "10.244.0.9");
        assert_eq!(refused.verdict.as_deref(), Some("REJECT"));
        assert_eq!(refused.steps[0].0, "filter KUBE-SERVICES");
        for unknown in ["10.96.0.83:81", "10.96.0.99:80"] {
            assert_eq!(to(unknown, "10.244.0.9"), Way::default());
        }
    }
}
