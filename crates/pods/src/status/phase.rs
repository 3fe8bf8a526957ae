//! Pending, Running, Succeeded, Failed. Upstream: `getPhase` in `kubelet_pods.go`.

use crate::container::{Role, containers};
use crate::pod_worker::PodWorker;
use crate::restart_policy::should_restart;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodSpec};

#[derive(Default)]
struct Count {
    pending_init: usize,
    pending_sidecars: usize,
    failed_init: usize,
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
}

impl PodWorker {
    pub(super) fn phase(&self, init: &[ContainerStatus], main: &[ContainerStatus]) -> &'static str {
        let Some(spec) = &self.pod.spec else {
            return "Pending";
        };
        let mut count = Count::default();
        for (role, container) in containers(spec) {
            let list = if role == Role::Main { main } else { init };
            let status = list.iter().find(|s| s.name == container.name);
            match role {
                Role::Init => count.init(status, &container, spec),
                Role::Sidecar => count.sidecar(status),
                Role::Main => count.main(status, &container, spec),
                Role::Ephemeral => {}
            }
        }
        let main_active = self
            .containers
            .iter()
            .any(|c| c.role == Role::Main && c.is_active());
        count.phase(main_active, self.is_terminal())
    }
}

impl Count {
    fn init(&mut self, status: Option<&ContainerStatus>, container: &Container, spec: &PodSpec) {
        match exit_code(status) {
            Some(0) => {}
            Some(code) if !should_restart(container, spec, code) => self.failed_init += 1,
            Some(_) => {}
            None => self.pending_init += 1,
        }
    }

    fn sidecar(&mut self, status: Option<&ContainerStatus>) {
        let state = status.and_then(|s| s.state.as_ref());
        match state {
            Some(s) if s.running.is_some() => {
                self.running += 1;
                if status.and_then(|s| s.started) != Some(true) {
                    self.pending_sidecars += 1;
                }
            }
            Some(s) if s.waiting.is_some() && exit_code(status).is_none() => {
                self.pending_sidecars += 1;
                self.waiting += 1;
            }
            Some(_) => {}
            None => self.unknown += 1,
        }
    }

    fn main(&mut self, status: Option<&ContainerStatus>, container: &Container, spec: &PodSpec) {
        let state = status.and_then(|s| s.state.as_ref());
        match (state, exit_code(status)) {
            (Some(s), _) if s.running.is_some() => self.running += 1,
            (Some(s), Some(code)) => {
                self.stopped += 1;
                if !should_restart(container, spec, code) {
                    self.stopped_for_good += 1;
                }
                if s.terminated.is_some() && code == 0 {
                    self.succeeded += 1;
                }
            }
            (Some(s), None) if s.waiting.is_some() => self.waiting += 1,
            _ => self.unknown += 1,
        }
    }

    fn phase(&self, main_active: bool, terminal: bool) -> &'static str {
        if self.failed_init > 0 {
            return "Failed";
        }
        // Sidecars that start again do not bring a pod back to Pending.
        if self.pending_init > 0 || (self.pending_sidecars > 0 && !main_active) || self.waiting > 0 {
            return "Pending";
        }
        if self.unknown > 0 {
            return "Pending";
        }
        if self.running > 0 {
            return "Running";
        }
        let done = terminal || self.stopped == self.stopped_for_good;
        match (self.stopped, done, self.stopped == self.succeeded) {
            (0, _, _) => "Pending",
            (_, false, _) => "Running",
            (_, true, true) => "Succeeded",
            (_, true, false) => "Failed",
        }
    }
}

/// The exit code of the instance that ended last, unless one runs.
fn exit_code(status: Option<&ContainerStatus>) -> Option<i32> {
    let status = status?;
    let state = status.state.as_ref()?;
    if let Some(terminated) = &state.terminated {
        return Some(terminated.exit_code);
    }
    state.waiting.as_ref()?;
    Some(status.last_state.as_ref()?.terminated.as_ref()?.exit_code)
}
