//! Which connections of the client NetworkPolicies forbid: the packet tracer over the tables in force says whether, and
//! the objects say which policies. What another node enforces is told by the objects alone.

use crate::commands::diagnose::node::Here;
use crate::commands::node_rules::{NodeRules, addresses, is_on_host_network, listed};
use coracle_client::Client;
use coracle_dataplane::fake_kernel::{Affinity, Outcome, Packet, trace};
use coracle_dataplane::{Connection, Denial as Judged, Direction as Judging, Key, PodId, PolicyKey, State};
use coracle_diagnose::{
    Denial, Direction, Evidence, Isolation, Peer, PeerPod, PodName, Protocol, Seen, endpoints,
};
use coracle_node::service_proxy::Looked;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const DNS_PORT: u16 = 53;

/// Judges the connections to endpoints and to the cluster DNS. Endpoints and DNS have to be in the evidence.
pub async fn judge(
    evidence: &Evidence,
    here: &Here,
    from: Option<&Pod>,
    looked: &Seen<Looked>,
    client: &Client,
) -> Seen<Vec<Denial>> {
    let nothing = State::new();
    let state = match looked {
        Ok(Looked::Tables(state) | Looked::ByIptables(state)) => state,
        Ok(Looked::Nothing) => &nothing,
        Err(why) => return Err(why.clone()),
    };
    let isolates = |key: &Key| matches!(key, Key::Policy(PolicyKey::Isolated(..)));
    if !state.keys().any(isolates) && listed::<NetworkPolicy>(client).await.is_empty() {
        // All Pods of the cluster are many, and nobody isolates one.
        return Ok(Vec::new());
    }
    let from = from.filter(|pod| !is_on_host_network(pod));
    let judge = Judge {
        rules: NodeRules::read(client, here, from).await,
        state,
        sources: match from {
            Some(pod) => addresses(pod),
            None => here.describe().addresses,
        },
        from,
    };
    let mut ways = endpoints(evidence);
    if let Ok(lookup) = &evidence.dns {
        ways.push((SocketAddr::new(lookup.server, DNS_PORT), Protocol::Udp));
    }
    let denials = ways
        .into_iter()
        .flat_map(|(to, protocol)| judge.way(to, protocol));
    Ok(denials.collect())
}

struct Judge<'a> {
    rules: NodeRules,
    state: &'a State,
    /// The addresses of the client.
    sources: Vec<IpAddr>,
    /// The Pod that connects; none for the node.
    from: Option<&'a Pod>,
}

impl Judge<'_> {
    fn way(&self, to: SocketAddr, protocol: Protocol) -> Vec<Denial> {
        let Some(source) = self.sources.iter().find(|ip| ip.is_ipv6() == to.is_ipv6()) else {
            return Vec::new();
        };
        let packet = Packet {
            source: *source,
            destination: to,
            protocol: served(protocol),
        };
        let enforced = self.enforced(&packet);
        let judged = self.rules.judge(&Connection {
            source: *source,
            destination: to,
            protocol: served(protocol),
        });
        let mut denials: Vec<Denial> = judged
            .iter()
            .filter(|judged| !judged.local || enforced.is_some())
            .map(|judged| self.denial(&packet, protocol, judged))
            .collect();
        if let (Some(direction), true) = (enforced, denials.is_empty()) {
            denials.push(self.unnamed(&packet, protocol, direction));
        }
        denials
    }

    /// The end of the connection that the tables of this node isolate.
    fn enforced(&self, packet: &Packet) -> Option<Judging> {
        let outcomes: BTreeSet<Outcome> = trace(
            &self.rules.config,
            &self.rules.node_addresses,
            &[self.state],
            &Affinity::new(),
            packet,
        );
        outcomes.into_iter().find_map(|outcome| match outcome {
            Outcome::Denied(direction) => Some(direction),
            _ => None,
        })
    }

    fn denial(&self, packet: &Packet, protocol: Protocol, judged: &Judged) -> Denial {
        let policies = judged.policies.iter().filter_map(|isolation| {
            let rules = isolation.rules.iter();
            Some(Isolation {
                policy: Arc::clone(self.rules.policies.get(&isolation.policy)?),
                admits: rules.map(|rule| (rule.peer, rule.port)).collect(),
            })
        });
        let peer = judged.peer.as_ref();
        Denial {
            to: packet.destination,
            protocol,
            direction: direction(judged.direction),
            pod: name(&judged.pod),
            peer: Peer {
                address: match judged.direction {
                    Judging::Ingress => packet.source,
                    Judging::Egress => packet.destination.ip(),
                },
                pod: peer.map(|peer| PeerPod {
                    name: name(&peer.id),
                    labels: peer.labels.clone(),
                    namespace_labels: peer.namespace_labels.clone(),
                }),
            },
            policies: policies.collect(),
        }
    }

    /// One whose policies, or whose Pods, may not be read.
    fn unnamed(&self, packet: &Packet, protocol: Protocol, judging: Judging) -> Denial {
        let (isolated, peer) = match judging {
            Judging::Ingress => (packet.destination.ip(), packet.source),
            Judging::Egress => (packet.source, packet.destination.ip()),
        };
        let mut known = self.rules.pods.iter().chain(self.from);
        let pod = known.find(|pod| addresses(pod).contains(&isolated));
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        Denial {
            to: packet.destination,
            protocol,
            direction: direction(judging),
            pod: PodName {
                namespace: text(pod.and_then(|pod| pod.metadata.namespace.as_ref())),
                name: match pod {
                    Some(pod) => text(pod.metadata.name.as_ref()),
                    None => isolated.to_string(),
                },
            },
            peer: Peer {
                address: peer,
                pod: None,
            },
            policies: Vec::new(),
        }
    }
}

fn name(pod: &PodId) -> PodName {
    PodName {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
    }
}

fn direction(direction: Judging) -> Direction {
    match direction {
        Judging::Ingress => Direction::Ingress,
        Judging::Egress => Direction::Egress,
    }
}

fn served(protocol: Protocol) -> coracle_dataplane::Protocol {
    match protocol {
        Protocol::Tcp => coracle_dataplane::Protocol::Tcp,
        Protocol::Udp => coracle_dataplane::Protocol::Udp,
        Protocol::Sctp => coracle_dataplane::Protocol::Sctp,
    }
}
