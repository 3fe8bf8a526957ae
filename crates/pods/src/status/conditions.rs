//! The conditions that the kubelet owns. Upstream: `pkg/kubelet/status/generate.go`.

use crate::container::Role;
use crate::pod_worker::{PodWorker, Sandbox};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const OWNED: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// A verdict with its reason and message; empty ones are absent on the wire.
struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self::of(true, "")
    }
    fn of(holds: bool, reason: &'static str) -> Self {
        Self {
            holds,
            reason,
            message: String::new(),
        }
    }
    fn no(reason: &'static str, message: String) -> Self {
        Self {
            holds: false,
            reason,
            message,
        }
    }
}

impl PodWorker {
    pub(super) fn conditions(
        &self,
        phase: &str,
        init: &[ContainerStatus],
        main: &[ContainerStatus],
        now: Timestamp,
    ) -> Vec<PodCondition> {
        // The API server holds the conditions of others: readiness gates, disruption.
        let current = self
            .pod
            .status
            .as_ref()
            .and_then(|s| s.conditions.as_deref())
            .unwrap_or_default();
        let foreign: Vec<&PodCondition> = current
            .iter()
            .filter(|c| !OWNED.contains(&c.type_.as_str()))
            .collect();
        let containers_ready = self.containers_ready(phase, init, main);
        let ready = if containers_ready.holds {
            self.readiness_gates(&foreign)
        } else {
            Verdict {
                holds: false,
                reason: containers_ready.reason,
                message: containers_ready.message.clone(),
            }
        };
        let has_sandbox = matches!(self.sandbox, Sandbox::Ready { .. });
        let verdicts = [
            Verdict::of(has_sandbox, ""),
            self.initialized(phase, init),
            ready,
            containers_ready,
            Verdict::yes(),
        ];
        let mut conditions: Vec<PodCondition> = foreign.into_iter().cloned().collect();
        let owned = OWNED.into_iter().zip(verdicts);
        conditions.extend(owned.map(|(kind, verdict)| self.condition(kind, verdict, now)));
        conditions
    }

    fn condition(&self, kind: &str, verdict: Verdict, now: Timestamp) -> PodCondition {
        let status = if verdict.holds { "True" } else { "False" };
        let reported = self.reported.conditions.iter().flatten();
        let since = reported
            .filter(|c| c.type_ == kind && c.status == status)
            .find_map(|c| c.last_transition_time.clone());
        let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: text(verdict.reason),
            message: text(&verdict.message),
            last_transition_time: since.or(Some(Time(now))),
            observed_generation: self.pod.metadata.generation,
            ..PodCondition::default()
        }
    }

    fn containers_ready(&self, phase: &str, init: &[ContainerStatus], main: &[ContainerStatus]) -> Verdict {
        match phase {
            "Succeeded" => return Verdict::of(false, "PodCompleted"),
            "Failed" => return Verdict::of(false, "PodFailed"),
            _ => {}
        }
        let sidecars = init.iter().filter(|s| self.role(&s.name) == Some(Role::Sidecar));
        let unready: Vec<&str> = sidecars
            .chain(main)
            .filter(|s| !s.ready)
            .map(|s| s.name.as_str())
            .collect();
        if unready.is_empty() {
            Verdict::yes()
        } else {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            Verdict::no("ContainersNotReady", message)
        }
    }

    fn readiness_gates(&self, foreign: &[&PodCondition]) -> Verdict {
        let gates = self.pod.spec.as_ref().and_then(|s| s.readiness_gates.as_deref());
        let mut messages = Vec::new();
        for gate in gates.unwrap_or_default() {
            let kind = &gate.condition_type;
            match foreign.iter().find(|c| c.type_ == *kind) {
                None => messages.push(format!(
                    "corresponding condition of pod readiness gate {kind:?} does not exist."
                )),
                Some(c) if c.status != "True" => messages.push(format!(
                    "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                    c.status
                )),
                Some(_) => {}
            }
        }
        if messages.is_empty() {
            Verdict::yes()
        } else {
            Verdict::no("ReadinessGatesNotReady", messages.join(", "))
        }
    }

    fn initialized(&self, phase: &str, init: &[ContainerStatus]) -> Verdict {
        if phase == "Succeeded" {
            return Verdict::of(true, "PodCompleted");
        }
        // Sidecars that start again do not undo the initialization.
        if self.initialized
            || self
                .containers
                .iter()
                .any(|c| c.role == Role::Main && c.is_started())
        {
            return Verdict::yes();
        }
        let incomplete: Vec<&str> = init
            .iter()
            .filter(|s| match self.role(&s.name) {
                Some(Role::Sidecar) => s.started != Some(true),
                _ => !s.ready,
            })
            .map(|s| s.name.as_str())
            .collect();
        if incomplete.is_empty() {
            Verdict::yes()
        } else {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            Verdict::no("ContainersNotInitialized", message)
        }
    }

    fn role(&self, name: &str) -> Option<Role> {
        self.containers.iter().find(|c| c.name == name).map(|c| c.role)
    }
}
