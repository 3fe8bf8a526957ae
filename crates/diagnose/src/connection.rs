//! Whether a connection is accepted, and what that says.

use crate::diagnosis::{Code, Severity, StepName, Verdict, Walk};
use crate::evidence::{Connected, Connection, Protocol, Via};
use crate::network_policy;
use crate::pod;
use crate::subject::{Port, Subject, count, some};

const STEP: StepName = StepName::Connection;

pub(crate) fn look(subject: &Subject<'_>, walk: &mut Walk) {
    let connections = match &subject.evidence.connections {
        Ok(connections) => connections,
        Err(why) => return walk.unknown(STEP, format!("not tried: {why}")),
    };
    for port in &subject.ports {
        if port.protocol != Protocol::Tcp {
            walk.unknown(
                STEP,
                format!(
                    "{}: not tried: only TCP says whether somebody answers",
                    port.label()
                ),
            );
            continue;
        }
        let own: Vec<&Connection> = connections.iter().filter(|c| c.port == port.index).collect();
        look_at(subject, port, &own, walk);
    }
}

fn look_at(subject: &Subject<'_>, port: &Port<'_>, tried: &[&Connection], walk: &mut Walk) {
    let (direct, through): (Vec<&Connection>, Vec<&Connection>) =
        tried.iter().copied().partition(|c| c.via == Via::Endpoint);
    let reachable = direct.iter().any(|c| c.outcome.is_accepted());
    for connection in &through {
        let text = format!(
            "{} {}: {}",
            via(&connection.via),
            connection.to,
            connection.outcome
        );
        if connection.outcome.is_accepted() {
            walk.ok(STEP, text);
        } else if reachable {
            walk.found(STEP, through_service(port, connection));
        } else {
            walk.failed(STEP, text);
        }
    }
    let (good, bad): (Vec<&Connection>, Vec<&Connection>) =
        direct.iter().copied().partition(|c| c.outcome.is_accepted());
    if !good.is_empty() {
        let text = format!(
            "straight to {} of {}: accepted",
            good.len(),
            count(direct.len(), "endpoint")
        );
        walk.ok(STEP, text);
    }
    if !bad.is_empty() {
        let verdict = endpoint_unreachable(port, &bad, direct.len());
        if bad
            .iter()
            .all(|c| network_policy::is_denied(subject, port.protocol, c.to))
        {
            walk.failed(STEP, verdict.message);
        } else {
            walk.found(STEP, verdict);
        }
    }
    if tried.is_empty() {
        walk.unknown(STEP, format!("{}: there is nothing to connect to", port.label()));
    }
    headless_port(subject, port, walk);
}

fn through_service(port: &Port<'_>, connection: &Connection) -> Verdict {
    let fix = match connection.via {
        Via::NodePort | Via::External => {
            "see that nothing on the node filters forwarded packets: nft list ruleset, iptables -L FORWARD"
        }
        Via::ClusterIp | Via::Endpoint => {
            "see that the client has a route to the Service's address and that nothing filters it: nft list ruleset"
        }
    };
    Verdict::problem(
        Code::ServiceUnreachable,
        format!(
            "{}: endpoints answer directly, but {} {} does not: {}",
            port.label(),
            via(&connection.via),
            connection.to,
            connection.outcome
        ),
        fix,
    )
}

fn endpoint_unreachable(port: &Port<'_>, bad: &[&Connection], all: usize) -> Verdict {
    let which = some(bad.iter().map(|c| c.to));
    let message = format!(
        "{}: {} of {} do not accept the client's connection ({which}): {}",
        port.label(),
        bad.len(),
        count(all, "endpoint"),
        bad[0].outcome
    );
    let fix = match bad[0].outcome {
        Connected::Refused(_) => "see that the program listens on that port, on every address".to_owned(),
        _ => "see that nothing filters packets between the client and the Pod, and that their node is up"
            .to_owned(),
    };
    Verdict::problem(Code::EndpointUnreachable, message, fix)
}

/// Clients of a headless Service connect to the Pods themselves, so the Service's port must be the Pods'.
fn headless_port(subject: &Subject<'_>, port: &Port<'_>, walk: &mut Walk) {
    let target = subject.pods.first().and_then(|pod| pod::target_port(pod, port));
    let Some(target) = target.filter(|target| subject.is_headless() && *target != port.port) else {
        return;
    };
    let message = format!(
        "the Service is headless: clients connect to the Pods themselves, which listen on {target}; nobody translates port {} to it",
        port.port
    );
    let fix =
        format!("connect to port {target}, or ask for the SRV record, or give the Service a cluster IP");
    walk.found(STEP, Verdict::note(Code::HeadlessPort, message, fix));
}

/// The verdict if nothing was found.
pub(crate) fn verdict(subject: &Subject<'_>) -> Verdict {
    let accepted = subject
        .evidence
        .connections
        .iter()
        .flatten()
        .any(|c| c.outcome.is_accepted());
    let name = &subject.evidence.name;
    if !accepted {
        let only_udp = !subject.ports.is_empty() && subject.ports.iter().all(|p| p.protocol != Protocol::Tcp);
        return match &subject.evidence.connections {
            Err(why) => Verdict {
                code: Code::NothingFound,
                severity: Severity::Note,
                message: format!(
                    "nothing is wrong in what was looked at; but no connection was tried: {why}"
                ),
                fix: String::new(),
            },
            Ok(_) if only_udp => Verdict {
                code: Code::NothingFound,
                severity: Severity::Fine,
                message: "nothing is wrong; whether somebody answers cannot be tried without TCP".to_owned(),
                fix: String::new(),
            },
            Ok(_) => Verdict {
                code: Code::NothingFound,
                severity: Severity::Note,
                message: "nothing is wrong, but there was nothing to connect to".to_owned(),
                fix: String::new(),
            },
        };
    }
    Verdict {
        code: Code::Answers,
        severity: Severity::Fine,
        message: format!("{name} answers. {}", how_to_reach(subject)),
        fix: String::new(),
    }
}

fn how_to_reach(subject: &Subject<'_>) -> String {
    let (name, namespace) = (&subject.evidence.name, &subject.evidence.namespace);
    let inside = format!("From Pods of its namespace: {name}; of others: {name}.{namespace}");
    let node_ports: Vec<u16> = subject.ports.iter().filter_map(|p| p.node_port).collect();
    let external = subject.external_ips();
    if !external.is_empty() {
        format!("{inside}. From outside: {}", some(external))
    } else if !node_ports.is_empty() {
        let nodes = match subject.evidence.node.addresses.first() {
            Some(address) => format!("any node, such as {address}"),
            None => "any node".to_owned(),
        };
        format!(
            "{inside}. From outside: {nodes}, port {} (not 127.0.0.1)",
            some(node_ports)
        )
    } else {
        let port = subject.ports.first().map_or(80, |port| port.port);
        let forward = subject.kubectl(&format!("port-forward svc/{name} {port}"));
        format!("{inside}. Outside the cluster it has no address: {forward}, or type NodePort")
    }
}

fn via(via: &Via) -> &'static str {
    match via {
        Via::ClusterIp => "cluster IP",
        Via::NodePort => "node port",
        Via::External => "external address",
        Via::Endpoint => "endpoint",
    }
}
