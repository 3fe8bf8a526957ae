//! Why does a Service not answer? From what was seen ([`Evidence`]) to one verdict with its fix ([`Diagnosis`]).
//!
//! The walk goes the way of the data: object, selector, Pods and their readiness, targetPort against the sockets that
//! really listen, EndpointSlice, packet rule, conntrack, NetworkPolicies, DNS, connection. What fails first is the cause of what fails
//! later, so the first finding that explains something is the verdict; the later steps show its consequences. Pure:
//! whoever calls collects the evidence.

mod attempts;
mod balancing;
mod connection;
mod conntrack;
mod denial;
mod diagnosis;
mod dns;
mod endpoint_slice;
mod evidence;
mod near;
mod network_policy;
mod object;
mod on_write;
mod pod;
mod readiness;
mod rule;
mod selector;
mod subject;
mod target_port;
#[cfg(test)]
mod tests;

pub use attempts::{Attempt, attempts, endpoints};
pub use balancing::unknown_balancing;
pub use denial::{Denial, Direction, Isolation, Peer, PeerPod, PodName};
pub use diagnosis::{Code, Diagnosis, Outcome, Severity, Step, StepName, Verdict};
pub use evidence::{
    Action, Answer, Client, Connected, Connection, Evidence, Flow, Frontend, Lookup, Node, Protocol, Rule,
    Seen, Socket, Via, Workload,
};
pub use on_write::{Slips, on_write};

use diagnosis::Walk;
use subject::Subject;

/// Walks from the object to the connection.
pub fn diagnose(evidence: &Evidence) -> Diagnosis {
    let mut walk = Walk::default();
    let spec = evidence
        .service
        .as_ref()
        .and_then(|s| Some((s, s.spec.as_ref()?)));
    let verdict = match spec {
        None => {
            object::missing(evidence, &mut walk);
            None
        }
        Some((service, spec)) => Some(look(&Subject::new(evidence, service, spec), &mut walk)),
    };
    let verdict = walk
        .verdict()
        .or(verdict)
        .unwrap_or_else(|| Verdict::note(Code::NothingFound, "nothing was found", ""));
    Diagnosis {
        namespace: evidence.namespace.clone(),
        name: evidence.name.clone(),
        client: client(evidence),
        steps: walk.into_steps(),
        verdict,
    }
}

/// Takes all steps. Returns the verdict for the case that none of them found anything.
fn look(subject: &Subject<'_>, walk: &mut Walk) -> Verdict {
    object::look(subject, walk);
    if subject.is_external_name() {
        dns::look(subject, walk);
        return object::external_name(subject);
    }
    selector::look(subject, walk);
    readiness::look(subject, walk);
    target_port::look(subject, walk);
    endpoint_slice::look(subject, walk);
    if !subject.is_headless() {
        rule::look(subject, walk);
        conntrack::look(subject, walk);
    }
    network_policy::look(subject, walk);
    dns::look(subject, walk);
    connection::look(subject, walk);
    connection::verdict(subject)
}

fn client(evidence: &Evidence) -> String {
    match &evidence.client.pod {
        Some(pod) => format!("pod {}/{pod}", evidence.client.namespace),
        None if evidence.node.name.is_empty() => "nowhere: not on a node".to_owned(),
        None => format!("node {}", evidence.node.name),
    }
}
