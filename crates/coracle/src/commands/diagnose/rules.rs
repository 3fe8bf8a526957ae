//! The packet rules that are in force, and the connections that the kernel tracks.

use super::node::describe;
use coracle_dataplane::{Class, Frontend as Served, Key, LOCAL_SLOTS, Pick, Source, State, Value};
use coracle_diagnose::{Action, Flow, Frontend, Protocol, Rule, Seen};
use coracle_kernel::net::conntrack::Conntrack;
use coracle_node::service_proxy::Looked;

/// The rules for all Services.
pub fn read(looked: &Seen<Looked>) -> Seen<Vec<Rule>> {
    match looked {
        Ok(Looked::Tables(state)) => Ok(rules(state)),
        Ok(Looked::ByIptables(_)) => {
            Err("the Services are in the chains of iptables (--proxy-mode iptables)".to_owned())
        }
        Ok(Looked::Nothing) => Err("the kernel has no rules of this version of coracle".to_owned()),
        Err(why) => Err(why.clone()),
    }
}

fn rules(state: &State) -> Vec<Rule> {
    let frontends = state.iter().filter_map(|(key, value)| match (key, value) {
        (Key::Service(frontend), Value::Class(class)) => Some((frontend, class)),
        _ => None,
    });
    frontends
        .map(|(frontend, class)| Rule {
            frontend: Frontend {
                address: frontend.address,
                port: frontend.port,
                protocol: protocol(frontend.protocol),
            },
            action: action(state, frontend, *class),
            inside: match state.get(&Key::Inside(*frontend)) {
                Some(Value::Class(inside)) => Some(action(state, frontend, *inside)),
                _ => None,
            },
        })
        .collect()
}

fn action(state: &State, frontend: &Served, class: Class) -> Action {
    let pick = match class {
        Class::Reject | Class::RejectRestricted => return Action::Refuse,
        Class::Drop => return Action::Drop,
        Class::Pick(Pick { count: 0, .. }) => return Action::Drop,
        Class::Pick(pick) => pick,
    };
    let first = if pick.source == Source::Keep {
        LOCAL_SLOTS
    } else {
        0
    };
    let slots =
        (first..first + pick.slots()).filter_map(|slot| match state.get(&Key::Slot(*frontend, slot)) {
            Some(Value::Target(target)) => Some(*target),
            _ => None,
        });
    let mut targets: Vec<_> = slots.collect();
    targets.sort_unstable();
    targets.dedup();
    Action::Forward(targets)
}

/// All flows of protocols with ports.
pub fn flows() -> Seen<Vec<Flow>> {
    let mut conntrack = Conntrack::open().map_err(|error| describe(&error))?;
    let mut flows = Vec::new();
    for ipv6 in [false, true] {
        for served in [
            coracle_dataplane::Protocol::Tcp,
            coracle_dataplane::Protocol::Udp,
            coracle_dataplane::Protocol::Sctp,
        ] {
            let tracked = conntrack
                .flows(ipv6, served.number())
                .map_err(|error| describe(&error))?;
            flows.extend(tracked.into_iter().map(|flow| Flow {
                protocol: protocol(served),
                client: flow.original.source.into(),
                destination: flow.original.destination.into(),
                endpoint: flow.destination_rewritten.then(|| flow.reply.source.into()),
            }));
        }
    }
    Ok(flows)
}

fn protocol(protocol: coracle_dataplane::Protocol) -> Protocol {
    match protocol {
        coracle_dataplane::Protocol::Tcp => Protocol::Tcp,
        coracle_dataplane::Protocol::Udp => Protocol::Udp,
        coracle_dataplane::Protocol::Sctp => Protocol::Sctp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_slots_become_rules() {
        let cluster_ip = Served {
            address: "10.96.0.7".parse().expect("an address"),
            protocol: coracle_dataplane::Protocol::Tcp,
            port: 80,
        };
        let node_port = Served::node_port(false, coracle_dataplane::Protocol::Tcp, 30080);
        let target = |text: &str| Value::Target(text.parse().expect("an address"));
        let class = |name: &str| Value::Class(name.parse().expect("the name of a class"));
        let state: State = [
            (Key::Service(cluster_ip), class("cluster-ip-2")),
            (Key::Slot(cluster_ip, 0), target("10.244.0.6:8080")),
            (Key::Slot(cluster_ip, 1), target("10.244.0.5:8080")),
            // Left over from a larger count.
            (Key::Slot(cluster_ip, 2), target("10.244.0.9:8080")),
            (Key::Service(node_port), class("node-port-local-0")),
            (Key::Inside(node_port), class("node-port-inside-1")),
            (Key::Slot(node_port, 0), target("10.244.0.5:8080")),
        ]
        .into();
        let forward = |targets: &[&str]| {
            Action::Forward(targets.iter().map(|t| t.parse().expect("an address")).collect())
        };
        let found = rules(&state);
        let of = |port| {
            found
                .iter()
                .find(|rule| rule.frontend.port == port)
                .expect("a rule")
        };
        assert_eq!(of(80).action, forward(&["10.244.0.5:8080", "10.244.0.6:8080"]));
        assert_eq!(of(80).inside, None);
        assert_eq!(of(30080).action, Action::Drop);
        assert_eq!(of(30080).inside, Some(forward(&["10.244.0.5:8080"])));
        assert_eq!(found.len(), 2);
    }
}
