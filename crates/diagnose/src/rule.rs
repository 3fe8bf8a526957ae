//! Whether the kernel's packet rules say what the EndpointSlices say.

use crate::diagnosis::{Code, StepName, Verdict, Walk};
use crate::evidence::{Action, Frontend, Rule};
use crate::subject::{Port, Subject, count, some};
use std::collections::BTreeSet;
use std::net::SocketAddr;

const STEP: StepName = StepName::Rule;

pub(crate) fn look(subject: &Subject<'_>, walk: &mut Walk) {
    let rules = match &subject.evidence.rules {
        Ok(rules) => rules,
        Err(why) => return walk.unknown(STEP, format!("not looked at: {why}")),
    };
    for port in &subject.ports {
        let usable = subject.usable(port);
        for frontend in subject.frontends(port) {
            match rules.iter().find(|rule| rule.frontend == frontend) {
                Some(rule) => look_at(subject, port, rule, &usable, walk),
                None if is_served_here(subject, &frontend) => {
                    walk.ok(
                        STEP,
                        format!("{frontend}: the node itself answers, without a rule"),
                    );
                }
                None => {
                    let message = format!("the kernel has no rule for {frontend}");
                    walk.found(STEP, Verdict::problem(Code::RuleMissing, message, fix()));
                }
            }
        }
    }
}

/// The cluster DNS answers on its own address.
fn is_served_here(subject: &Subject<'_>, frontend: &Frontend) -> bool {
    let dns = subject.evidence.dns.as_ref();
    dns.is_ok_and(|lookup| lookup.server == frontend.address)
}

fn look_at(
    subject: &Subject<'_>,
    port: &Port<'_>,
    rule: &Rule,
    usable: &BTreeSet<SocketAddr>,
    walk: &mut Walk,
) {
    let frontend = &rule.frontend;
    let text = format!("{frontend} {}", describe(&rule.action));
    let text = match &rule.inside {
        Some(inside) => format!("{text}; from Pods and nodes it {}", describe(inside)),
        None => text,
    };
    let targets = match &rule.action {
        Action::Forward(targets) => targets.as_slice(),
        Action::Refuse | Action::Drop => &[],
    };
    let stale: Vec<&SocketAddr> = targets.iter().filter(|target| !usable.contains(target)).collect();
    if !stale.is_empty() {
        let message = format!(
            "the kernel sends {frontend} to {}, which no EndpointSlice lists",
            some(stale)
        );
        walk.found(STEP, Verdict::problem(Code::RuleDiffers, message, fix()));
    } else if !targets.is_empty() {
        walk.ok(STEP, text);
    } else if usable.is_empty() {
        // So it must be: without endpoints, nobody shall wait.
        walk.failed(STEP, text);
    } else if let Some(policy) = local_policy(subject, port, frontend) {
        walk.found(STEP, no_local_endpoints(subject, frontend, policy));
    } else {
        let message = format!(
            "the kernel's rule for {frontend} {}, though there {}",
            describe(&rule.action),
            match usable.len() {
                1 => "is 1 endpoint".to_owned(),
                n => format!("are {n} endpoints"),
            }
        );
        walk.found(STEP, Verdict::problem(Code::RuleDiffers, message, fix()));
    }
}

/// The policy that confines this frontend to endpoints of this node, if that leaves none.
fn local_policy(subject: &Subject<'_>, port: &Port<'_>, frontend: &Frontend) -> Option<&'static str> {
    let node = subject.evidence.node.name.as_str();
    let usable = subject.usable(port);
    let local = subject
        .endpoints(port)
        .iter()
        .any(|e| e.node == Some(node) && usable.contains(&e.target));
    let spec = subject.spec;
    let (policy, name) = if subject.cluster_ips().contains(&frontend.address) {
        (&spec.internal_traffic_policy, "internalTrafficPolicy")
    } else {
        (&spec.external_traffic_policy, "externalTrafficPolicy")
    };
    (policy.as_deref() == Some("Local") && !local).then_some(name)
}

fn no_local_endpoints(subject: &Subject<'_>, frontend: &Frontend, policy: &str) -> Verdict {
    let nodes: BTreeSet<&str> = subject
        .ports
        .iter()
        .flat_map(|port| subject.endpoints(port))
        .filter_map(|endpoint| endpoint.node)
        .collect();
    let here = &subject.evidence.node.name;
    let elsewhere = if nodes.is_empty() {
        "elsewhere".to_owned()
    } else {
        format!("on {}", some(nodes))
    };
    let patch = format!("'{{\"spec\":{{\"{policy}\":\"Cluster\"}}}}'");
    Verdict::problem(
        Code::NoLocalEndpoints,
        format!(
            "{policy} is Local and no endpoint is on node {here}, so {frontend} is dropped here; the Pods are {elsewhere}"
        ),
        format!(
            "connect to a node that has such a Pod, or {}",
            subject.kubectl(&format!("patch service {} -p {patch}", subject.evidence.name))
        ),
    )
}

fn describe(action: &Action) -> String {
    match action {
        Action::Refuse => "refuses at once".to_owned(),
        Action::Drop => "drops".to_owned(),
        Action::Forward(targets) => {
            format!("goes to {}: {}", count(targets.len(), "endpoint"), some(targets))
        }
    }
}

fn fix() -> String {
    "ask again in a moment; if it stays, the service proxy does not keep up: see the daemon's log".to_owned()
}
