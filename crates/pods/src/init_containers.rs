//! The order in which a pod begins: init containers one after the other, sidecars among them staying.
//! Upstream: `computeInitContainerActions`.

use crate::container::{Role, State};
use crate::pod_worker::PodWorker;
use k8s_openapi::api::core::v1::PodSpec;

/// How far the init containers are.
pub(crate) enum Progress {
    /// All have done their part.
    Done,
    /// Not yet; these are to be started.
    Starts(Vec<usize>),
    /// One failed for good.
    Failed,
}

impl PodWorker {
    /// Looks forwards, where upstream looks backwards, because records are never lost here. Sidecars that start again
    /// do not hold up what comes after them.
    pub(crate) fn init_progress(&self, spec: &PodSpec) -> Progress {
        let mut starts = Vec::new();
        let init: Vec<usize> = (0..self.containers.len())
            .filter(|i| matches!(self.containers[*i].role, Role::Init | Role::Sidecar))
            .collect();
        for (position, index) in init.iter().copied().enumerate() {
            let record = &self.containers[index];
            if record.role == Role::Sidecar {
                if !record.is_active() {
                    starts.push(index);
                }
                let mut later = init[position + 1..].iter();
                let first_time = later.all(|i| self.containers[*i].state == State::Absent);
                if !record.is_started() && first_time {
                    return Progress::Starts(starts);
                }
                continue;
            }
            match &record.state {
                State::Exited(ended) if ended.exit_code == 0 => {}
                State::Exited(_) if !self.wants_start(spec, index) => return Progress::Failed,
                State::Absent | State::Exited(_) => {
                    starts.push(index);
                    return Progress::Starts(starts);
                }
                State::Starting { .. } | State::Running(_) => return Progress::Starts(starts),
            }
        }
        Progress::Done
    }
}
