//! The Service itself.

use crate::balancing::unknown_balancing;
use crate::diagnosis::{Code, Severity, StepName, Verdict, Walk};
use crate::evidence::Evidence;
use crate::near::near;
use crate::subject::{Subject, Target, kubectl, some};
use std::net::IpAddr;

const STEP: StepName = StepName::Object;

/// There is no such Service: perhaps it has another name, or is in another namespace.
pub(crate) fn missing(evidence: &Evidence, walk: &mut Walk) {
    let (namespace, name) = (evidence.namespace.as_str(), evidence.name.as_str());
    let namespaces_with_it: Vec<&str> = evidence
        .services
        .iter()
        .filter(|(_, other)| other == name)
        .map(|(namespace, _)| namespace.as_str())
        .collect();
    let here: Vec<&str> = evidence
        .services
        .iter()
        .filter(|(other, _)| other == namespace)
        .map(|(_, name)| name.as_str())
        .collect();
    let near = near(name, here.iter().copied());
    let message = format!("there is no Service {name:?} in the namespace {namespace:?}");
    let (message, fix) = if let Some(first) = near.first() {
        let fix = format!("use {first:?}, or create {name:?}");
        (format!("{message}; there is {}", some(near)), fix)
    } else if let Some(first) = namespaces_with_it.first() {
        let fix = format!("use -n {first} here, and the name {name}.{first} in Pods of other namespaces");
        (
            format!("{message}; there is one in {}", some(namespaces_with_it)),
            fix,
        )
    } else if here.is_empty() {
        (format!("{message}, and no other"), create(namespace, name))
    } else {
        (
            format!("{message}; there is {}", some(here)),
            create(namespace, name),
        )
    };
    walk.found(STEP, Verdict::problem(Code::NoSuchService, message, fix));
}

fn create(namespace: &str, name: &str) -> String {
    let command = format!("expose deployment NAME --name={name} --port=80");
    format!("create it, for example: {}", kubectl(namespace, &command))
}

pub(crate) fn look(subject: &Subject<'_>, walk: &mut Walk) {
    walk.ok(STEP, describe(subject));
    if let Some(verdict) = address_as_name(subject) {
        walk.found(STEP, verdict);
        return;
    }
    let balancing = subject.evidence.service.as_ref().and_then(unknown_balancing);
    if let Some(verdict) = balancing {
        walk.found(STEP, verdict);
    }
    let pending = subject.type_() == "LoadBalancer" && subject.external_ips().is_empty();
    if pending {
        let node_ports: Vec<u16> = subject.ports.iter().filter_map(|p| p.node_port).collect();
        let fix = if node_ports.is_empty() {
            "run a load balancer controller for this class".to_owned()
        } else {
            format!(
                "from outside use an address of a node and node port {}, or run a load balancer controller",
                some(node_ports)
            )
        };
        let message = "no load balancer has given the Service an address yet (EXTERNAL-IP is <pending>)";
        walk.found(STEP, Verdict::note(Code::LoadBalancerPending, message, fix));
    }
}

/// The DNS has no alias of an address.
pub(crate) fn address_as_name(subject: &Subject<'_>) -> Option<Verdict> {
    let name = subject.spec.external_name.as_deref()?;
    if !subject.is_external_name() || name.parse::<IpAddr>().is_err() {
        return None;
    }
    Some(Verdict::problem(
        Code::ExternalNameIsAddress,
        format!("externalName {name} is an address, and the DNS has aliases of names only"),
        format!("use a Service without selector, and an EndpointSlice with the address {name}"),
    ))
}

fn describe(subject: &Subject<'_>) -> String {
    if subject.is_external_name() {
        let name = subject.spec.external_name.as_deref().unwrap_or_default();
        return format!("ExternalName, another name for {name}");
    }
    let ports = subject.ports.iter().map(|port| {
        let target = match port.target {
            Target::Number(number) => number.to_string(),
            Target::Name(name) => name.to_owned(),
        };
        let node_port = port
            .node_port
            .map(|p| format!(", node port {p}"))
            .unwrap_or_default();
        format!("{} to targetPort {target}{node_port}", port.label())
    });
    let address = if subject.is_headless() {
        "headless".to_owned()
    } else {
        format!("{} {}", subject.type_(), some(subject.cluster_ips()))
    };
    format!("{address}: {}", some(ports))
}

/// The verdict on an ExternalName Service in which nothing was found.
pub(crate) fn external_name(subject: &Subject<'_>) -> Verdict {
    let name = subject.spec.external_name.as_deref().unwrap_or_default();
    let severity = if subject.evidence.dns.is_ok() {
        Severity::Fine
    } else {
        Severity::Note
    };
    let code = if severity == Severity::Fine {
        Code::Answers
    } else {
        Code::NothingFound
    };
    Verdict {
        code,
        severity,
        message: format!(
            "the name stands for {name}; connections go there directly, with that host's ports and not the Service's"
        ),
        fix: String::new(),
    }
}
