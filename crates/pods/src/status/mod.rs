//! The status that a pod reports. Upstream: `Kubelet.generateAPIPodStatus`, `pkg/kubelet/status`.

mod conditions;
mod container_statuses;
mod phase;

use crate::container::Role;
use crate::pod_worker::PodWorker;
use crate::qos;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What container ids begin with: the runtime's name.
pub const RUNTIME: &str = "coracle";

impl PodWorker {
    /// The status at `now`, if it differs from the one reported last. The next call starts from it.
    pub fn status(&mut self, now: Timestamp) -> Option<PodStatus> {
        let status = self.generate_status(now);
        if status == self.reported {
            return None;
        }
        self.reported = status.clone();
        Some(status)
    }

    /// The status reported last.
    pub fn reported_status(&self) -> &PodStatus {
        &self.reported
    }

    fn generate_status(&self, now: Timestamp) -> PodStatus {
        let old = &self.reported;
        let init = self.container_statuses(|role| matches!(role, Role::Init | Role::Sidecar));
        let main = self.container_statuses(|role| role == Role::Main);
        let ephemeral = self.container_statuses(|role| role == Role::Ephemeral);
        let mut phase = self.phase(&init, &main);
        // A terminal phase is for ever.
        if let Some(last @ ("Succeeded" | "Failed")) = old.phase.as_deref() {
            phase = if last == "Failed" { "Failed" } else { "Succeeded" };
        } else if self.failure.is_some() {
            phase = "Failed";
        }
        let (reason, message) = match &self.failure {
            Some((reason, message)) => (Some(reason.clone()), Some(message.clone())),
            None if old.phase.as_deref() == Some(phase) => (old.reason.clone(), old.message.clone()),
            None => (None, None),
        };
        let text =
            |ips: &[std::net::IpAddr]| -> Vec<String> { ips.iter().map(ToString::to_string).collect() };
        let host_ips = text(&self.settings.host_ips);
        // The address of a pod whose network is gone stays in its status.
        let pod_ips = match text(self.ips()) {
            ips if ips.is_empty() => old.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect(),
            ips => ips,
        };
        let conditions = self.conditions(phase, &init, &main, now);
        PodStatus {
            observed_generation: self.pod.metadata.generation,
            phase: Some(phase.to_owned()),
            conditions: Some(conditions),
            reason,
            message,
            host_ip: host_ips.first().cloned(),
            host_ips: non_empty(host_ips.into_iter().map(|ip| HostIP { ip }).collect()),
            pod_ip: pod_ips.first().cloned(),
            pod_ips: non_empty(pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
            start_time: Some(Time(self.started_at)),
            qos_class: old
                .qos_class
                .clone()
                .or_else(|| Some(qos::class(&self.pod).to_owned())),
            init_container_statuses: non_empty(init),
            container_statuses: non_empty(main),
            ephemeral_container_statuses: non_empty(ephemeral),
            ..old.clone()
        }
    }
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
