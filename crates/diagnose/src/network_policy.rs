//! Whether NetworkPolicies let the client's connections through, as the packet rules in force have it: to the endpoints
//! behind the Service, since that is what policies judge, and to the cluster DNS.

use crate::denial::{Denial, Direction};
use crate::diagnosis::{Code, StepName, Verdict, Walk};
use crate::evidence::{Protocol, Via};
use crate::subject::{Port, Subject, count, some};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

const STEP: StepName = StepName::NetworkPolicy;
/// Of the cluster DNS.
const DNS_PORT: u16 = 53;

pub(crate) fn look(subject: &Subject<'_>, walk: &mut Walk) {
    let denials = match &subject.evidence.denials {
        Ok(denials) => denials,
        Err(why) => return walk.unknown(STEP, format!("not looked at: {why}")),
    };
    for port in &subject.ports {
        let usable = subject.usable(port);
        if usable.is_empty() {
            // Nobody is connected to, so nobody is kept from it.
            continue;
        }
        let own: Vec<&Denial> = denials
            .iter()
            .filter(|denial| is_about(denial, port.protocol, &usable) && !is_accepted(subject, denial))
            .collect();
        let denied: BTreeSet<SocketAddr> = own.iter().map(|denial| denial.to).collect();
        if own.is_empty() {
            let endpoints = count(usable.len(), "endpoint");
            let text = format!("{}: none keeps the client from {endpoints}", port.label());
            walk.ok(STEP, text);
        }
        for alike in alike(own) {
            walk.found(STEP, verdict(port, &alike, denied.len(), usable.len()));
        }
    }
}

fn is_about(denial: &Denial, protocol: Protocol, targets: &BTreeSet<SocketAddr>) -> bool {
    denial.protocol == protocol && targets.contains(&denial.to)
}

/// What was tried says more than what was read a moment before.
fn is_accepted(subject: &Subject<'_>, denial: &Denial) -> bool {
    let mut connections = subject.evidence.connections.iter().flatten();
    connections.any(|c| c.via == Via::Endpoint && c.to == denial.to && c.outcome.is_accepted())
}

/// Whether a policy keeps the client's connections from this endpoint.
pub(crate) fn is_denied(subject: &Subject<'_>, protocol: Protocol, to: SocketAddr) -> bool {
    let mut denials = subject.evidence.denials.iter().flatten();
    denials.any(|denial| denial.protocol == protocol && denial.to == to)
}

/// Those for which one thing can be said. The packet leaves the client first.
fn alike(denials: Vec<&Denial>) -> Vec<Vec<&Denial>> {
    let mut groups: BTreeMap<_, Vec<&Denial>> = BTreeMap::new();
    for denial in denials {
        let policies: Vec<String> = denial.policies.iter().map(|p| p.name()).collect();
        let key = (denial.direction, policies, denial.to.port());
        groups.entry(key).or_default().push(denial);
    }
    groups.into_values().collect()
}

fn verdict(port: &Port<'_>, denials: &[&Denial], denied: usize, all: usize) -> Verdict {
    let first = denials[0];
    let mut message = format!("{}: {}", port.label(), isolation(denials));
    if first.to.port() != port.port && message.ends_with(&format!("{}/{}", first.to.port(), port.protocol)) {
        message.push_str(&format!(", the targetPort of {}", port.port));
    }
    if denied < all {
        message.push_str(&format!(
            " ({denied} of {} cannot be reached)",
            count(all, "endpoint")
        ));
    }
    Verdict::problem(Code::NetworkPolicyDenies, message, first.fix())
}

/// Which policies isolate whom, what they admit, and what the connection is instead. The denials are alike.
fn isolation(denials: &[&Denial]) -> String {
    let first = denials[0];
    let direction = first.direction;
    let pods: BTreeSet<String> = denials.iter().map(|denial| denial.pod.to_string()).collect();
    let pods = some(pods);
    let (subject, they) = match first.policies.as_slice() {
        [] => {
            return format!(
                "a NetworkPolicy, which may not be read, keeps the connection from the {direction} of {pods}"
            );
        }
        [policy] => (format!("NetworkPolicy {} isolates", policy.name()), "admits"),
        policies => {
            let names = some(policies.iter().map(|policy| policy.name()));
            (format!("NetworkPolicies {names} isolate"), "admit")
        }
    };
    let to = match direction {
        Direction::Ingress => "",
        Direction::Egress => " connections to",
    };
    let mismatch = first.mismatch();
    let separator = if mismatch.is_empty() { "" } else { "; " };
    format!(
        "{subject} the {direction} of {pods} and {they}{to} {}{separator}{mismatch}",
        first.admitted()
    )
}

/// What keeps the client from the cluster DNS.
pub(crate) fn dns(subject: &Subject<'_>, server: IpAddr) -> Option<Verdict> {
    let to = SocketAddr::new(server, DNS_PORT);
    let mut denials = subject.evidence.denials.iter().flatten();
    let denial = denials.find(|denial| denial.protocol == Protocol::Udp && denial.to == to)?;
    Some(Verdict::problem(
        Code::NetworkPolicyDenies,
        format!("the client cannot ask the cluster DNS: {}", isolation(&[denial])),
        denial.fix(),
    ))
}
