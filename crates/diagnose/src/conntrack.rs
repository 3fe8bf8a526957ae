//! Whether the kernel remembers older answers. A tracked connection keeps its endpoint: TCP ends with its endpoint, but
//! UDP goes on for as long as packets come.

use crate::diagnosis::{Code, StepName, Verdict, Walk};
use crate::evidence::{Flow, Frontend, Protocol};
use crate::subject::{Subject, count, some};

const STEP: StepName = StepName::Conntrack;

pub(crate) fn look(subject: &Subject<'_>, walk: &mut Walk) {
    let flows = match &subject.evidence.flows {
        Ok(flows) => flows,
        Err(why) => return walk.unknown(STEP, format!("not looked at: {why}")),
    };
    for port in &subject.ports {
        let frontends = subject.frontends(port);
        let own: Vec<&Flow> = flows
            .iter()
            .filter(|flow| frontends.iter().any(|f| is_to(subject, flow, f)))
            .collect();
        let usable = subject.usable(port);
        let stale: Vec<&Flow> = own
            .iter()
            .copied()
            .filter(|flow| match flow.endpoint {
                Some(endpoint) => !usable.contains(&endpoint),
                None => !usable.is_empty(),
            })
            .collect();
        if port.protocol == Protocol::Udp && !stale.is_empty() {
            let clients = some(stale.iter().map(|flow| flow.client));
            let gone = some(stale.iter().filter_map(|flow| flow.endpoint));
            let where_ = if gone.is_empty() {
                "nowhere".to_owned()
            } else {
                format!("to {gone}, which is gone")
            };
            let message = format!(
                "{}: the kernel still sends datagrams of {clients} {where_}",
                port.label()
            );
            let fix = format!(
                "let the client use another source port, or forget the flows: conntrack -D -p udp --orig-port-dst {}",
                port.port
            );
            walk.found(STEP, Verdict::problem(Code::StaleFlows, message, fix));
        } else {
            let text = format!("{}: {} tracked", port.label(), count(own.len(), "connection"));
            let text = match stale.len() {
                0 => text,
                n => format!("{text}, {n} of them to endpoints that take no new ones"),
            };
            walk.ok(STEP, text);
        }
    }
}

fn is_to(subject: &Subject<'_>, flow: &Flow, frontend: &Frontend) -> bool {
    let address = flow.destination.ip();
    let here = frontend.address.is_unspecified() && subject.evidence.node.addresses.contains(&address);
    flow.protocol == frontend.protocol
        && flow.destination.port() == frontend.port
        && (address == frontend.address || here)
}
