//! The way of a packet through the tables, in words.

use super::PodNames;
use super::chains::Way;
use coracle_dataplane::fake_kernel::{Affinity, Outcome, Packet, connect_reading, trace};
use coracle_dataplane::{
    Balancing, Class, Config, Denial, Direction, Key, Load, Pick, PolicyKey, Ports, Source, State, Value,
};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What addresses are called.
pub struct Names {
    /// The Pod that connects.
    pub client: String,
    /// The Service that it connects to.
    pub service: String,
    /// The port, as it was asked for.
    pub port: String,
    /// The node whose rules they are.
    pub node: String,
    /// Pods by their addresses.
    pub pods: PodNames,
}

/// The way of a packet. Its text form is what people read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    client: String,
    source: IpAddr,
    service: String,
    port: String,
    destination: SocketAddr,
    protocol: String,
    node: String,
    /// The elements that the packet looks for, in order.
    steps: Vec<Step>,
    /// Everything that may happen to it.
    outcomes: Vec<String>,
}

/// One element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Step {
    /// The map or set of the kernel's table; the table and the chain of iptables.
    map: String,
    /// What is looked for and found.
    text: String,
}

/// Tells it. What chance decides is told for the first choice; `outcomes` has all.
pub fn narrate(
    config: &Config,
    node_addresses: &BTreeSet<IpAddr>,
    state: &State,
    packet: &Packet,
    names: &Names,
    forbids: &dyn Fn(SocketAddr) -> Vec<Denial>,
) -> Told {
    let mut steps = Vec::new();
    connect_reading(
        config,
        node_addresses,
        &[state],
        &mut Affinity::new(),
        packet,
        &mut |_| 0,
        &mut |key, value| steps.push(step(key, value, names)),
    );
    let trace = |state: &State| trace(config, node_addresses, &[state], &Affinity::new(), packet);
    let without_policies = without_isolation(state);
    let mut outcomes = Vec::new();
    for outcome in trace(state) {
        match outcome {
            Outcome::Denied(direction) => {
                let open = trace(&without_policies);
                outcomes.extend(denials(direction, &open, packet.destination, names, forbids));
            }
            other => outcomes.push(describe(&other, names)),
        }
    }
    Told::new(packet, names, steps, outcomes)
}

/// Tells the way through the chains of iptables. Behind it, policies judge as ever: by the kernel's tables.
pub fn narrate_chains(
    config: &Config,
    node_addresses: &BTreeSet<IpAddr>,
    state: &State,
    way: Way,
    packet: &Packet,
    names: &Names,
    forbids: &dyn Fn(SocketAddr) -> Vec<Denial>,
) -> Told {
    let steps = way.steps.into_iter().map(|(map, text)| Step { map, text });
    let mut outcomes = Vec::new();
    for (to, source_rewritten) in way.endpoints {
        let behind = Packet {
            destination: to,
            ..*packet
        };
        let judged = trace(config, node_addresses, &[state], &Affinity::new(), &behind);
        let denied = judged.iter().find_map(|outcome| match outcome {
            Outcome::Denied(direction) => Some(*direction),
            _ => None,
        });
        match denied {
            Some(direction) => {
                let open = [Outcome::Sent { to, source_rewritten }].into();
                outcomes.extend(denials(direction, &open, to, names, forbids));
            }
            None => outcomes.push(describe(&Outcome::Sent { to, source_rewritten }, names)),
        }
    }
    if outcomes.is_empty() {
        let outcome = match way.verdict.as_deref() {
            Some("REJECT") => Outcome::Refused,
            Some(_) => Outcome::Dropped,
            // What nobody knows is dropped on its way out.
            None if config
                .service_cidrs
                .iter()
                .any(|cidr| cidr.contains(&packet.destination.ip())) =>
            {
                Outcome::Dropped
            }
            None => Outcome::Untouched,
        };
        outcomes.push(describe(&outcome, names));
    }
    Told::new(packet, names, steps.collect(), outcomes)
}

impl Told {
    fn new(packet: &Packet, names: &Names, steps: Vec<Step>, outcomes: Vec<String>) -> Self {
        Self {
            client: names.client.clone(),
            source: packet.source,
            service: names.service.clone(),
            port: names.port.clone(),
            destination: packet.destination,
            protocol: packet.protocol.to_string(),
            node: names.node.clone(),
            steps,
            outcomes,
        }
    }
}

/// What the tables would be without NetworkPolicies.
fn without_isolation(state: &State) -> State {
    let is_kept = |key: &Key| !matches!(key, Key::Policy(_));
    let kept = state.iter().filter(|(key, _)| is_kept(key));
    kept.map(|(key, value)| (*key, *value)).collect()
}

/// A sentence for each endpoint that the policies keep the packet from.
fn denials(
    direction: Direction,
    open: &BTreeSet<Outcome>,
    destination: SocketAddr,
    names: &Names,
    forbids: &dyn Fn(SocketAddr) -> Vec<Denial>,
) -> Vec<String> {
    let targets = open.iter().filter_map(|outcome| match outcome {
        Outcome::Sent { to, .. } => Some(*to),
        Outcome::Untouched => Some(destination),
        _ => None,
    });
    let mut sentences = Vec::new();
    for target in targets {
        for denial in forbids(target)
            .iter()
            .filter(|denial| denial.direction == direction)
        {
            let policies: Vec<String> = denial
                .policies
                .iter()
                .map(|isolation| isolation.policy.to_string())
                .collect();
            sentences.push(format!(
                "dropped on the way to {}: {direction} of Pod {} is isolated by NetworkPolicy {}, and no rule lets this through",
                target_name(target, names),
                denial.pod,
                policies.join(", ")
            ));
        }
    }
    if sentences.is_empty() {
        sentences.push(format!(
            "dropped: a NetworkPolicy ({direction}) does not let it through"
        ));
    }
    sentences
}

fn step(key: Key, value: Option<Value>, names: &Names) -> Step {
    let (map, looked_for) = match key {
        Key::Service(frontend) => ("frontends", format!("{frontend}")),
        Key::Inside(frontend) => ("inside", format!("{frontend}, for clients inside the cluster")),
        Key::Slot(frontend, slot) => ("slots", format!("{frontend}, slot {slot}")),
        Key::SlotId(frontend, slot) => ("slot-ids", format!("{frontend}, slot {slot}")),
        Key::Endpoint(frontend, id) => ("endpoints", format!("{frontend}, endpoint {id:08x}")),
        Key::Hairpin(address) => ("hairpins", format!("{address} to itself")),
        Key::Source(_, range) => ("sources", format!("client in {range}")),
        Key::ClusterIp(address) => ("cluster-ips", address.to_string()),
        Key::Policy(key) => policy_step(&key, names),
    };
    let found = match value {
        None => "is not there".to_owned(),
        Some(Value::Class(class)) => format!("→ chain {class}: {}", rule(&class)),
        Some(Value::Target(target)) => format!("→ {}", target_name(target, names)),
        Some(Value::Id(id)) if matches!(key, Key::Policy(_)) => format!("→ group {id:08x}"),
        Some(Value::Id(id)) => format!("→ endpoint {id:08x}"),
        Some(Value::Present) => "is there".to_owned(),
    };
    Step {
        map: map.to_owned(),
        text: format!("{looked_for} {found}"),
    }
}

/// A look at the maps of NetworkPolicies.
fn policy_step(key: &PolicyKey, names: &Names) -> (&'static str, String) {
    let name = |ip: &IpAddr| match names.pods.get(ip) {
        Some(pod) => format!("{ip} (Pod {pod})"),
        None => ip.to_string(),
    };
    match key {
        PolicyKey::Isolated(Direction::Ingress, ip) => ("isolated-ingress", name(ip)),
        PolicyKey::Isolated(Direction::Egress, ip) => ("isolated-egress", name(ip)),
        PolicyKey::Peer(direction, ip) => ("policy-peers", format!("{direction}, {}", name(ip))),
        PolicyKey::Block(direction, first, last) if first == last => {
            ("policy-blocks", format!("{direction}, {first}"))
        }
        PolicyKey::Block(direction, first, last) => ("policy-blocks", format!("{direction}, {first}-{last}")),
        PolicyKey::Allowed(ip, number, ports) => {
            let of = match Direction::BOTH.iter().find(|of| of.anyone() == *number) {
                Some(_) => format!("{}, everybody", name(ip)),
                None => format!("{}, group {number:08x}", name(ip)),
            };
            match ports {
                Ports::All => ("policy-everything", of),
                Ports::One(protocol, port) => ("policy-ports", format!("{of}, {port}/{protocol}")),
                Ports::Range(protocol, first, last) if first == last => {
                    ("policy-ranges", format!("{of}, {first}/{protocol}"))
                }
                Ports::Range(protocol, first, last) => {
                    ("policy-ranges", format!("{of}, {first}-{last}/{protocol}"))
                }
            }
        }
    }
}

/// What a chain does.
fn rule(class: &Class) -> String {
    let pick = match class {
        Class::Reject => return "refused at once".to_owned(),
        Class::RejectRestricted => return "refused at once; dropped out of the source ranges".to_owned(),
        Class::Drop => return "dropped".to_owned(),
        Class::Pick(pick) => pick,
    };
    let Pick {
        source,
        count,
        sticky,
        balancing,
        ..
    } = pick;
    let how = match balancing {
        Balancing::Random => "at random",
        Balancing::RoundRobin(_) => "in turn",
        Balancing::SourceHash => "by the client's address",
        Balancing::DestinationHash => "by the address connected to",
        Balancing::ByLoad(Load::LeastConnections, _) => "with the fewest connections",
        Balancing::ByLoad(Load::ShortestExpectedDelay, _) => "with the fewest connections for its weight",
        Balancing::ByLoad(Load::NeverQueue, _) => "without connections, or with the fewest for its weight",
    };
    let source = match source {
        Source::RewriteOutside => "a Pod's address is kept",
        Source::Rewrite => "the client's address is rewritten",
        Source::Keep => "the client's address is kept, endpoints on this node only",
    };
    let sticky = match sticky {
        Some(seconds) => format!("; a client stays with its endpoint for {seconds} s"),
        None => String::new(),
    };
    let endpoints = if *count == 1 {
        "the endpoint".to_owned()
    } else {
        format!("one of {count} endpoints {how}")
    };
    format!("{endpoints}; {source}{sticky}")
}

fn describe(outcome: &Outcome, names: &Names) -> String {
    match outcome {
        Outcome::Sent { to, source_rewritten } => {
            let source = if *source_rewritten {
                ", which sees an address of the node"
            } else {
                ""
            };
            format!("sent to {}{source}", target_name(*to, names))
        }
        Outcome::Refused => "refused at once".to_owned(),
        Outcome::Dropped => "dropped".to_owned(),
        Outcome::Denied(direction) => {
            format!("dropped: a NetworkPolicy ({direction}) does not let it through")
        }
        Outcome::Untouched => "left alone: no rule is for it".to_owned(),
        Outcome::Lost => "lost: an element that should be there is missing".to_owned(),
    }
}

fn target_name(target: SocketAddr, names: &Names) -> String {
    match names.pods.get(&target.ip()) {
        Some(pod) => format!("{target} (Pod {pod})"),
        None => target.to_string(),
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Pod {} ({}) to Service {} port {} ({}/{}), on node {}",
            self.client, self.source, self.service, self.port, self.destination, self.protocol, self.node
        )?;
        let longest = self.steps.iter().map(|step| step.map.len()).max();
        let width = longest.unwrap_or_default().max(17);
        for step in &self.steps {
            writeln!(f, "  {:width$}  {}", step.map, step.text)?;
        }
        for outcome in &self.outcomes {
            writeln!(f, "Outcome: {outcome}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_dataplane::{Frontend, Isolation, PodId, PolicyId, Protocol};

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn told(state: &State, client: &str) -> String {
        let packet = Packet {
            source: address(client),
            destination: "10.96.0.7:80".parse().expect("an address"),
            protocol: Protocol::Tcp,
        };
        let config = Config {
            pod_cidrs: vec![address(client).into()],
            service_cidrs: vec!["10.96.0.0/12".parse().expect("a range")],
            ..Config::default()
        };
        let pods = [("10.244.0.5", "shop/web-a"), ("10.244.0.6", "shop/web-b")];
        let names = Names {
            client: "shop/client".into(),
            service: "shop/web".into(),
            port: "http".into(),
            node: "node-1".into(),
            pods: pods.map(|(ip, name)| (address(ip), name.to_owned())).into(),
        };
        let forbids = |_| {
            vec![Denial {
                direction: Direction::Ingress,
                pod: PodId {
                    namespace: "shop".into(),
                    name: "web-a".into(),
                },
                local: true,
                peer: None,
                policies: vec![Isolation {
                    policy: PolicyId {
                        namespace: "shop".into(),
                        name: "deny".into(),
                    },
                    rules: Vec::new(),
                }],
            }]
        };
        narrate(&config, &BTreeSet::new(), state, &packet, &names, &forbids).to_string()
    }

    fn state(class: &str) -> State {
        let frontend = Frontend {
            address: address("10.96.0.7"),
            protocol: Protocol::Tcp,
            port: 80,
        };
        let target = |text: &str| Value::Target(text.parse().expect("an address"));
        [
            (
                Key::Service(frontend),
                Value::Class(class.parse().expect("a class")),
            ),
            (Key::Slot(frontend, 0), target("10.244.0.5:8080")),
            (Key::Slot(frontend, 1), target("10.244.0.6:8080")),
            (Key::Hairpin(address("10.244.0.5")), Value::Present),
        ]
        .into()
    }

    #[test]
    fn each_element_and_every_outcome_is_told() {
        assert_eq!(
            told(&state("cluster-ip-2"), "10.244.0.9"),
            "Pod shop/client (10.244.0.9) to Service shop/web port http (10.96.0.7:80/TCP), on node node-1
  frontends          10.96.0.7:80/TCP → chain cluster-ip-2: one of 2 endpoints at random; a Pod's address is kept
  slots              10.96.0.7:80/TCP, slot 0 → 10.244.0.5:8080 (Pod shop/web-a)
  isolated-egress    10.244.0.9 is not there
  isolated-ingress   10.244.0.5 (Pod shop/web-a) is not there
Outcome: sent to 10.244.0.5:8080 (Pod shop/web-a)
Outcome: sent to 10.244.0.6:8080 (Pod shop/web-b)
"
        );
        let hairpin = told(&state("cluster-ip-1"), "10.244.0.5");
        assert!(
            hairpin.contains("  hairpins           10.244.0.5 to itself is there\n"),
            "{hairpin}"
        );
        assert!(hairpin.contains("which sees an address of the node"), "{hairpin}");
    }

    #[test]
    fn a_policy_that_forbids_is_named() {
        let mut state = state("cluster-ip-1");
        let web = address("10.244.0.5");
        let isolated = Key::Policy(PolicyKey::Isolated(Direction::Ingress, web));
        state.insert(isolated, Value::Present);
        let client = Key::Policy(PolicyKey::Peer(Direction::Ingress, address("10.244.0.9")));
        state.insert(client, Value::Id(0x2a));
        let told = told(&state, "10.244.0.9");
        for expected in [
            "  isolated-egress    10.244.0.9 is not there\n",
            "  isolated-ingress   10.244.0.5 (Pod shop/web-a) is there\n",
            "  policy-peers       Ingress, 10.244.0.9 → group 0000002a\n",
            "  policy-ports       10.244.0.5 (Pod shop/web-a), group 0000002a, 8080/TCP is not there\n",
            "Outcome: dropped on the way to 10.244.0.5:8080 (Pod shop/web-a): Ingress of Pod shop/web-a is isolated by NetworkPolicy shop/deny, and no rule lets this through\n",
        ] {
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn refusal_and_absence_are_told() {
        let refused = told(&state("refuse"), "10.244.0.9");
        assert!(
            refused.contains("→ chain refuse: refused at once\nOutcome: refused at once\n"),
            "{refused}"
        );
        let nothing = told(&State::new(), "10.244.0.9");
        assert!(nothing.contains("10.96.0.7:80/TCP is not there\n"), "{nothing}");
        assert!(nothing.ends_with("Outcome: dropped\n"), "{nothing}");
    }
}
