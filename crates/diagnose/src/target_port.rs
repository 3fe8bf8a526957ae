//! Where the Service sends packets in the Pods, against the sockets that really listen there.

use crate::diagnosis::{Code, StepName, Verdict, Walk};
use crate::evidence::{Protocol, Socket, Via};
use crate::near::near;
use crate::pod;
use crate::subject::{Port, Subject, Target, count, some};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const STEP: StepName = StepName::TargetPort;

pub(crate) fn look(subject: &Subject<'_>, walk: &mut Walk) {
    for port in &subject.ports {
        look_at(subject, port, walk);
    }
}

/// What a Pod does with packets to a port.
enum Listens {
    Yes,
    LoopbackOnly(u16),
    OtherProtocol(u16, Protocol),
    /// Nobody listens on this port, but on these.
    No(u16, BTreeSet<u16>),
    Unknown(String),
}

pub(crate) fn look_at(subject: &Subject<'_>, port: &Port<'_>, walk: &mut Walk) {
    let pods: Vec<&Pod> = subject
        .pods
        .iter()
        .copied()
        .filter(|pod| !pod::is_ending(pod))
        .collect();
    if pods.is_empty() {
        return;
    }
    let (named, unnamed): (Vec<&Pod>, Vec<&Pod>) = pods
        .iter()
        .copied()
        .partition(|pod| pod::target_port(pod, port).is_some());
    if !unnamed.is_empty() {
        walk.found(STEP, unknown_name(subject, port, &unnamed, pods.len()));
    }
    let running: Vec<&Pod> = named
        .into_iter()
        .filter(|pod| pod::has_running_container(pod))
        .collect();
    let mut wrong: Vec<(&Pod, Listens)> = Vec::new();
    let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
    let mut right = BTreeSet::new();
    for pod in &running {
        let Some(target) = pod::target_port(pod, port) else {
            continue;
        };
        match listens(subject, port, pod, target) {
            Listens::Yes => {
                right.insert(target);
            }
            Listens::Unknown(why) => *unknown.entry(why).or_default() += 1,
            other => wrong.push((*pod, other)),
        }
    }
    if !right.is_empty() && wrong.is_empty() && unnamed.is_empty() {
        let text = format!(
            "{}: port {} listens in {}",
            port.label(),
            some(right),
            count(running.len() - unknown.values().sum::<usize>(), "Pod")
        );
        walk.ok(STEP, text);
    }
    if !wrong.is_empty() {
        walk.found(STEP, nothing_listens(subject, port, &wrong, running.len()));
    }
    for (why, pods) in unknown {
        walk.unknown(
            STEP,
            format!(
                "{}: sockets of {} not looked at: {why}",
                port.label(),
                count(pods, "Pod")
            ),
        );
    }
}

fn listens(subject: &Subject<'_>, port: &Port<'_>, pod: &Pod, target: u16) -> Listens {
    let ips: Vec<IpAddr> = pod::ips(pod);
    // A connection that was accepted says more than sockets: packets may be turned inside the Pod.
    let accepted = subject.evidence.connections.iter().flatten().any(|c| {
        c.via == Via::Endpoint && c.to.port() == target && ips.contains(&c.to.ip()) && c.outcome.is_accepted()
    });
    if accepted && port.protocol == Protocol::Tcp {
        return Listens::Yes;
    }
    let sockets = match subject.evidence.sockets.get(pod::name(pod)) {
        Some(Ok(sockets)) => sockets,
        Some(Err(why)) => return Listens::Unknown(why.clone()),
        None => return Listens::Unknown("not on this node".to_owned()),
    };
    let takes = |socket: &Socket| ips.iter().any(|ip| socket.takes(*ip));
    let same: Vec<&Socket> = sockets.iter().filter(|s| s.port == target).collect();
    let of_protocol = |socket: &&&Socket| socket.protocol == port.protocol;
    if same.iter().filter(of_protocol).any(|s| takes(s)) {
        Listens::Yes
    } else if same.iter().filter(of_protocol).any(|s| s.address.is_loopback()) {
        Listens::LoopbackOnly(target)
    } else if let Some(other) = same.iter().find(|s| takes(s)) {
        Listens::OtherProtocol(target, other.protocol)
    } else {
        let others = sockets.iter().filter(|s| s.protocol == port.protocol && takes(s));
        Listens::No(target, others.map(|s| s.port).collect())
    }
}

fn unknown_name(subject: &Subject<'_>, port: &Port<'_>, pods: &[&Pod], all: usize) -> Verdict {
    let Target::Name(name) = port.target else {
        unreachable!("a number needs no container port")
    };
    let mut known: BTreeMap<(&str, Protocol), BTreeSet<i32>> = BTreeMap::new();
    for declared in pods.iter().flat_map(|pod| pod::container_ports(pod)) {
        let key = (
            declared.name.as_deref().unwrap_or_default(),
            Protocol::parse(declared.protocol.as_deref()),
        );
        known.entry(key).or_default().insert(declared.container_port);
    }
    let label = port.label();
    let other = known.iter().find(|((n, _), _)| *n == name);
    if let Some(((_, protocol), _)) = other {
        let message = format!(
            "the Service's port {label} is {}, but the container port {name:?} is {protocol}: that is another port",
            port.protocol
        );
        return Verdict::problem(
            Code::WrongProtocol,
            message,
            set(subject, port, "protocol", &json!(protocol)),
        );
    }
    let declared = known
        .iter()
        .filter(|((name, _), _)| !name.is_empty())
        .map(|((name, protocol), numbers)| format!("{name:?} ({}/{protocol})", some(numbers)));
    let declared = some(declared);
    let declared = if declared.is_empty() {
        "they name no port".to_owned()
    } else {
        format!("they have {declared}")
    };
    let message = format!(
        "targetPort {name:?} of port {label} is the name of no container port in {} of {}; {declared}",
        pods.len(),
        count(all, "Pod")
    );
    let names = || {
        known
            .keys()
            .filter(|(name, protocol)| !name.is_empty() && *protocol == port.protocol)
            .map(|(name, _)| *name)
    };
    let meant = near(name, names()).first().copied().or_else(|| {
        let mut names = names();
        names.next().filter(|_| names.next().is_none())
    });
    let fix = match meant {
        Some(meant) => set(subject, port, "targetPort", &json!(meant)),
        None => format!("name a container port {name:?} in the Pods, or set targetPort to a number"),
    };
    Verdict::problem(Code::TargetPortUnknown, message, fix)
}

fn nothing_listens(subject: &Subject<'_>, port: &Port<'_>, wrong: &[(&Pod, Listens)], all: usize) -> Verdict {
    let label = port.label();
    let which = match (wrong, all) {
        ([(pod, _)], 1) => format!("Pod {}", pod::name(pod)),
        _ => format!("{} of {}", wrong.len(), count(all, "Pod")),
    };
    match &wrong[0].1 {
        Listens::LoopbackOnly(target) => Verdict::problem(
            Code::ListensOnLoopback,
            format!("in {which}, port {target} (targetPort of {label}) listens on the loopback address only"),
            format!("let the program listen on 0.0.0.0 (or ::) instead of 127.0.0.1, port {target}"),
        ),
        Listens::OtherProtocol(target, protocol) => Verdict::problem(
            Code::WrongProtocol,
            format!(
                "in {which}, port {target} (targetPort of {label}) listens on {protocol}, not on {}",
                port.protocol
            ),
            set(subject, port, "protocol", &json!(protocol)),
        ),
        Listens::No(target, others) => {
            let here = match others.len() {
                0 => format!("no {} port listens there", port.protocol),
                1 => format!("port {} listens there", some(others)),
                _ => format!("ports {} listen there", some(others)),
            };
            let message =
                format!("in {which}, nothing listens on port {target} (targetPort of {label}); {here}");
            Verdict::problem(
                Code::NothingListens,
                message,
                listen_fix(subject, port, *target, others),
            )
        }
        Listens::Yes | Listens::Unknown(_) => unreachable!("these are not wrong"),
    }
}

fn listen_fix(subject: &Subject<'_>, port: &Port<'_>, target: u16, others: &BTreeSet<u16>) -> String {
    // A port that another port of the Service leads to is not the one that was meant.
    let taken: BTreeSet<u16> = subject
        .ports
        .iter()
        .filter(|other| other.index != port.index)
        .filter_map(|other| pod::target_port(subject.pods.first()?, other))
        .collect();
    let free: Vec<u16> = others.difference(&taken).copied().collect();
    // Of several, the one that looks most like what was written.
    let texts: Vec<String> = free.iter().map(u16::to_string).collect();
    let nearest = near(&target.to_string(), texts.iter().map(String::as_str));
    let meant = match (free.as_slice(), nearest.as_slice()) {
        ([one], _) => Some(one.to_string()),
        (_, [one, ..]) => Some((*one).to_owned()),
        _ => None,
    };
    match (meant.and_then(|port| port.parse::<u16>().ok()), &port.target) {
        (Some(meant), Target::Number(_)) => set(subject, port, "targetPort", &json!(meant)),
        (Some(meant), Target::Name(name)) => {
            format!("set the containerPort {name:?} in the Pod template to {meant}")
        }
        (None, _) if free.is_empty() => format!("let the program listen on port {target}"),
        (None, _) => "set targetPort to the port that is meant".to_owned(),
    }
}

/// The command that sets a field of a port.
fn set(subject: &Subject<'_>, port: &Port<'_>, field: &str, value: &Value) -> String {
    let path = format!("/spec/ports/{}/{field}", port.index);
    // "add" replaces what is there, too.
    let patch = json!([{"op": "add", "path": path, "value": value}]);
    subject.kubectl(&format!(
        "patch service {} --type=json -p '{patch}'",
        subject.evidence.name
    ))
}
