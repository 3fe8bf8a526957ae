//! The table of pods. Upstream: `printPod` in `pkg/printers/internalversion/printers.go`.

use crate::access::Read;
use crate::table::{AGE, NAME, TableSpec, age, or_none, since, text, wide};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;

pub(super) static TABLE: TableSpec = TableSpec {
    columns: &[
        NAME,
        text("Ready"),
        text("Status"),
        text("Restarts"),
        AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    cells,
};

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let (spec, status) = (pod.sub("spec"), pod.sub("status"));
    let restarts = match &summary.last_restart {
        Some(time) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, since(Some(time), now))
        }
        _ => summary.restarts.to_string(),
    };
    let pod_ip = status.list("podIPs").first().map_or("", |ip| ip.text("ip"));
    vec![
        pod.name().into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, now),
        or_none(pod_ip),
        or_none(spec.text("nodeName")),
        or_none(status.text("nominatedNodeName")),
        readiness_gates(pod),
    ]
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = pod.sub("spec").list("readinessGates");
    if gates.is_empty() {
        return or_none("");
    }
    let fulfilled = gates
        .iter()
        .filter(|gate| condition_is_true(pod, gate.text("conditionType")))
        .count();
    format!("{fulfilled}/{}", gates.len()).into()
}

fn condition_is_true(pod: &Value, kind: &str) -> bool {
    pod.sub("status")
        .list("conditions")
        .iter()
        .find(|condition| condition.text("type") == kind)
        .is_some_and(|condition| condition.text("status") == "True")
}

/// What the columns READY, STATUS and RESTARTS are made of.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    /// RFC 3339 in UTC, so that the order of texts is that of times.
    last_restart: Option<String>,
}

/// What one list of container statuses adds up to.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<String>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += container.int("restartCount").unwrap_or_default();
        let finished = container.sub("lastState").sub("terminated").text("finishedAt");
        if !finished.is_empty() && self.last.as_deref().is_none_or(|last| last < finished) {
            self.last = Some(finished.to_owned());
        }
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let (spec, status) = (pod.sub("spec"), pod.sub("status"));
        let phase = status.text("phase");
        let mut reason = match status.text("reason") {
            "" => phase.to_owned(),
            reason => reason.to_owned(),
        };
        if status.list("conditions").iter().any(|condition| {
            condition.text("type") == "PodScheduled" && condition.text("reason") == "SchedulingGated"
        }) {
            reason = "SchedulingGated".to_owned();
        }

        let sidecars: Vec<&str> = spec
            .list("initContainers")
            .iter()
            .filter(|container| container.text("restartPolicy") == "Always")
            .map(|container| container.text("name"))
            .collect();
        let total = spec.list("containers").len() + sidecars.len();
        let mut ready = 0;
        let (mut restarts, mut of_sidecars) = (Restarts::default(), Restarts::default());
        let mut initializing = false;
        let init_statuses = status.list("initContainerStatuses");
        for (index, container) in init_statuses.iter().enumerate() {
            let is_sidecar = sidecars.contains(&container.text("name"));
            restarts.add(container);
            if is_sidecar {
                of_sidecars.add(container);
            }
            if is_sidecar && container.flag("started") && !has_ended_well(container) {
                ready += usize::from(container.flag("ready"));
                continue;
            }
            if let Some(text) = init_reason(container, index, spec.list("initContainers").len()) {
                reason = text;
                initializing = true;
                break;
            }
        }

        if !initializing || condition_is_true(pod, "Initialized") {
            restarts = of_sidecars;
            let mut has_running = false;
            let mut error_reason = None;
            for container in status.list("containerStatuses").iter().rev() {
                restarts.add(container);
                let state = container.sub("state");
                let waiting = state.sub("waiting").text("reason");
                if !waiting.is_empty() {
                    reason = waiting.to_owned();
                } else if let Some(terminated) = state.field("terminated") {
                    reason = termination_reason(terminated);
                    if terminated.int("exitCode").unwrap_or_default() != 0 {
                        error_reason = Some(reason.clone());
                    }
                } else if container.flag("ready") && state.has("running") {
                    has_running = true;
                    ready += 1;
                }
            }
            // One container that ended does not make a pod whose others run look completed.
            if reason == "Completed" {
                if has_running && condition_is_true(pod, "Ready") {
                    reason = "Running".to_owned();
                } else if let Some(error) = error_reason {
                    reason = error;
                } else if has_running {
                    reason = "NotReady".to_owned();
                }
            }
        }

        if pod.is_terminating() && status.text("reason") == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if pod.is_terminating() && !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".to_owned();
        }
        Self {
            ready,
            total,
            reason,
            restarts: restarts.count,
            last_restart: restarts.last,
        }
    }
}

fn has_ended_well(container: &Value) -> bool {
    container
        .sub("state")
        .field("terminated")
        .is_some_and(|terminated| terminated.int("exitCode").unwrap_or_default() == 0)
}

/// Why the pod waits for an init container; `None` when it does not.
fn init_reason(container: &Value, index: usize, count: usize) -> Option<String> {
    if has_ended_well(container) {
        return None;
    }
    let state = container.sub("state");
    if let Some(terminated) = state.field("terminated") {
        return Some(format!("Init:{}", termination_reason(terminated)));
    }
    Some(match state.sub("waiting").text("reason") {
        "" | "PodInitializing" => format!("Init:{index}/{count}"),
        reason => format!("Init:{reason}"),
    })
}

fn termination_reason(terminated: &Value) -> String {
    match (terminated.text("reason"), terminated.int("signal")) {
        ("", Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        ("", _) => format!("ExitCode:{}", terminated.int("exitCode").unwrap_or_default()),
        (reason, _) => reason.to_owned(),
    }
}
