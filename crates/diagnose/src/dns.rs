//! Whether the Service's name has the right addresses.

use crate::diagnosis::{Code, StepName, Verdict, Walk};
use crate::evidence::{Answer, Lookup};
use crate::network_policy;
use crate::subject::{Subject, some};
use std::collections::BTreeSet;
use std::net::IpAddr;

const STEP: StepName = StepName::Dns;

pub(crate) fn look(subject: &Subject<'_>, walk: &mut Walk) {
    let lookup = match &subject.evidence.dns {
        Ok(lookup) => lookup,
        Err(why) => return walk.unknown(STEP, format!("not asked: {why}")),
    };
    let denied = match &lookup.answer {
        Answer::None(_) => network_policy::dns(subject, lookup.server),
        _ => None,
    };
    if let Some(denied) = denied {
        walk.found(STEP, denied);
    } else if subject.is_external_name() {
        external_name(subject, lookup, walk);
    } else {
        addresses(subject, lookup, walk);
    }
    let client = &subject.evidence.client;
    if let Some(pod) = client.pod.as_ref().filter(|_| client.resolver_of_node) {
        let message = format!(
            "Pod {pod} asks the node's resolver (dnsPolicy Default, or hostNetwork), which does not know names of Services"
        );
        let fix =
            "set dnsPolicy: ClusterFirst in the Pod, or ClusterFirstWithHostNet with hostNetwork".to_owned();
        walk.found(STEP, Verdict::problem(Code::ClientResolver, message, fix));
    }
}

fn addresses(subject: &Subject<'_>, lookup: &Lookup, walk: &mut Walk) {
    let name = lookup.name.trim_end_matches('.');
    let expected: BTreeSet<IpAddr> = if subject.is_headless() {
        endpoint_addresses(subject)
    } else {
        subject.cluster_ips().into_iter().collect()
    };
    match &lookup.answer {
        Answer::Addresses(found) | Answer::Alias(_, found) => {
            let found: BTreeSet<IpAddr> = found.iter().copied().collect();
            // The question was for one family only if the Service has one only.
            if found == expected && !found.is_empty() {
                walk.ok(STEP, format!("{name} is {}", some(found)));
            } else if expected.is_empty() {
                walk.failed(STEP, format!("{name} has no address: there are no endpoints"));
            } else {
                let found = if found.is_empty() {
                    "no address".to_owned()
                } else {
                    some(found)
                };
                walk.found(
                    STEP,
                    differs(format!("{name} is {found}, but should be {}", some(&expected))),
                );
            }
        }
        // Without endpoints, a headless Service has no name either.
        Answer::NoSuchName if expected.is_empty() => {
            walk.failed(STEP, format!("{name} does not exist: there are no endpoints"));
        }
        Answer::NoSuchName => {
            walk.found(
                STEP,
                differs(format!(
                    "the cluster DNS does not know {name}, which should be {}",
                    some(expected)
                )),
            );
        }
        Answer::Failed(code) => walk.found(
            STEP,
            differs(format!("the cluster DNS answers {code} for {name}")),
        ),
        Answer::None(why) => walk.found(STEP, no_answer(lookup, why)),
    }
}

fn external_name(subject: &Subject<'_>, lookup: &Lookup, walk: &mut Walk) {
    let name = lookup.name.trim_end_matches('.');
    let target = subject
        .spec
        .external_name
        .as_deref()
        .unwrap_or_default()
        .trim_end_matches('.');
    let unresolved = |reason: &str| {
        Verdict::problem(
            Code::ExternalNameUnresolved,
            format!("{name} stands for {target}, {reason}"),
            format!(
                "correct externalName, or see that the node's resolver knows it: {}",
                subject.kubectl(&format!("edit service {}", subject.evidence.name))
            ),
        )
    };
    match &lookup.answer {
        Answer::Alias(to, _) if to.trim_end_matches('.') != target => {
            walk.found(
                STEP,
                differs(format!(
                    "{name} stands for {to} in the cluster DNS, but should for {target}"
                )),
            );
        }
        Answer::Alias(_, found) if !found.is_empty() => {
            walk.ok(
                STEP,
                format!("{name} stands for {target}, which is {}", some(found)),
            );
        }
        Answer::Alias(..) => walk.found(STEP, unresolved("which has no address")),
        Answer::Addresses(_) => walk.found(
            STEP,
            differs(format!("{name} has no CNAME, but should stand for {target}")),
        ),
        Answer::NoSuchName => walk.found(STEP, unresolved("which does not exist")),
        Answer::Failed(code) => {
            walk.found(
                STEP,
                unresolved(&format!(
                    "and the cluster DNS could not find out its address ({code})"
                )),
            );
        }
        // For other names it answers by itself; for this one it has to ask.
        Answer::None(why) => walk.found(
            STEP,
            unresolved(&format!(
                "and the cluster DNS could not find out its address: {why}"
            )),
        ),
    }
}

fn endpoint_addresses(subject: &Subject<'_>) -> BTreeSet<IpAddr> {
    let not_ready_too = subject.publishes_not_ready();
    let endpoints = subject
        .slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints
        .filter(|endpoint| {
            not_ready_too || endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
        })
        .filter_map(|endpoint| endpoint.addresses.first()?.parse().ok())
        .collect()
}

fn differs(message: String) -> Verdict {
    Verdict::problem(
        Code::DnsDiffers,
        message,
        "ask again in a moment; if it stays, the cluster DNS does not keep up: see the daemon's log",
    )
}

fn no_answer(lookup: &Lookup, why: &str) -> Verdict {
    Verdict::problem(
        Code::DnsNoAnswer,
        format!(
            "the cluster DNS ({}) does not answer the client: {why}",
            lookup.server
        ),
        format!(
            "see that the daemon runs (coracle status) and that nothing keeps the client from {} port 53",
            lookup.server
        ),
    )
}
