//! Whether the EndpointSlices list what the Pods say.

use crate::diagnosis::{Code, StepName, Verdict, Walk};
use crate::evidence::Protocol;
use crate::pod;
use crate::subject::{Port, Subject, count, some};
use coracle_meta::well_known_labels::SERVICE_NAME;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::net::SocketAddr;

const STEP: StepName = StepName::EndpointSlice;

pub(crate) fn look(subject: &Subject<'_>, walk: &mut Walk) {
    if subject.slices.is_empty() {
        nothing(subject, walk);
        return;
    }
    for port in &subject.ports {
        look_at(subject, port, walk);
    }
    // A headless Service may have no ports; its addresses are for the DNS alone.
    if subject.ports.is_empty() {
        walk.ok(STEP, count(subject.slices.len(), "EndpointSlice"));
    }
}

fn nothing(subject: &Subject<'_>, walk: &mut Walk) {
    let name = &subject.evidence.name;
    if subject.selector().is_some() {
        let message = "there is no EndpointSlice".to_owned();
        if walk.has_problem() {
            walk.failed(STEP, message);
        } else {
            walk.found(STEP, differs(message, subject));
        }
        return;
    }
    // Written by hand, it is easily without its label.
    let unlabelled = subject.evidence.slices.iter().find(|slice| {
        let slice_name = slice.metadata.name.as_deref().unwrap_or_default();
        let labelled = slice
            .metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(SERVICE_NAME));
        !labelled && slice_name.starts_with(name.as_str())
    });
    let verdict = match unlabelled.and_then(|slice| slice.metadata.name.as_deref()) {
        Some(slice) => Verdict::problem(
            Code::NoSelectorNoEndpoints,
            format!("the Service has no selector, and EndpointSlice {slice} does not name it in a label"),
            subject.kubectl(&format!("label endpointslice {slice} {SERVICE_NAME}={name}")),
        ),
        None => Verdict::problem(
            Code::NoSelectorNoEndpoints,
            "the Service has no selector, and nobody wrote EndpointSlices for it",
            format!(
                "give it a selector ({}), or create an EndpointSlice with the label {SERVICE_NAME}: {name}",
                subject.kubectl(&format!("set selector service {name} KEY=VALUE"))
            ),
        ),
    };
    walk.found(STEP, verdict);
}

fn look_at(subject: &Subject<'_>, port: &Port<'_>, walk: &mut Walk) {
    let endpoints = subject.endpoints(port);
    let label = port.label();
    if endpoints.is_empty()
        && let Some(verdict) = other_name(subject, port)
    {
        walk.found(STEP, verdict);
        return;
    }
    let usable = subject.usable(port);
    let mut missing: Vec<SocketAddr> = Vec::new();
    for pod in subject.eligible() {
        let Some(number) = pod::target_port(pod, port) else {
            continue;
        };
        for ipv6 in subject.families() {
            let ips = pod::ips(pod);
            let own = ips
                .iter()
                .find(|ip| ip.is_ipv6() == ipv6)
                .map(|ip| SocketAddr::new(*ip, number));
            missing.extend(own.filter(|target| !usable.contains(target)));
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "{label}: no EndpointSlice lists {}, though the Pod is ready",
            some(&missing)
        );
        walk.found(STEP, differs(message, subject));
    }
    let known = subject.selector().is_some();
    let gone: Vec<SocketAddr> = usable
        .iter()
        .copied()
        .filter(|target| known && subject.pod_at(target.ip()).is_none())
        .collect();
    if !gone.is_empty() {
        let message = format!(
            "{label}: an EndpointSlice lists {}, which is no Pod that the selector finds",
            some(&gone)
        );
        walk.found(STEP, differs(message, subject));
    }
    if usable.is_empty() {
        let text = format!("{label}: none of {} is ready", count(endpoints.len(), "endpoint"));
        let text = if endpoints.is_empty() {
            format!("{label}: no endpoints")
        } else {
            text
        };
        if walk.has_problem() || !missing.is_empty() {
            walk.failed(STEP, text);
        } else {
            let fix = "see which condition the endpoints have: ".to_owned()
                + &subject.kubectl(&format!(
                    "get endpointslices -l {SERVICE_NAME}={} -o yaml",
                    subject.evidence.name
                ));
            walk.found(STEP, Verdict::problem(Code::NoSelectorNoEndpoints, text, fix));
        }
    } else if missing.is_empty() && gone.is_empty() {
        walk.ok(
            STEP,
            format!(
                "{label}: {} of {}: {}",
                usable.len(),
                count(endpoints.len(), "endpoint"),
                some(&usable)
            ),
        );
    }
}

/// A slice that has endpoints, but under another name of the port.
fn other_name(subject: &Subject<'_>, port: &Port<'_>) -> Option<Verdict> {
    if subject.selector().is_some() {
        return None;
    }
    let has_endpoints = |slice: &&&EndpointSlice| slice.endpoints.iter().flatten().next().is_some();
    let slice = subject.slices.iter().find(has_endpoints)?;
    let ports: Vec<String> = slice
        .ports
        .iter()
        .flatten()
        .map(|p| {
            let protocol = Protocol::parse(p.protocol.as_deref());
            format!("{:?} ({protocol})", p.name.as_deref().unwrap_or_default())
        })
        .collect();
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    Some(Verdict::problem(
        Code::PortNameMismatch,
        format!(
            "EndpointSlice {name} has no port named {:?} ({}) as the Service does; it has {}",
            port.name,
            port.protocol,
            if ports.is_empty() {
                "none".to_owned()
            } else {
                some(&ports)
            }
        ),
        format!("give the port of EndpointSlice {name} the name and protocol of the Service's port"),
    ))
}

fn differs(message: String, subject: &Subject<'_>) -> Verdict {
    Verdict::problem(
        Code::EndpointsDiffer,
        message,
        format!(
            "ask again in a moment; if it stays, the endpoint controller does not keep up: {}",
            subject.kubectl(&format!("describe service {}", subject.evidence.name))
        ),
    )
}
