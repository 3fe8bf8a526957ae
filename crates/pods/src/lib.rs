//! The life of a pod on its node, as decisions: (pod, states of its containers, probe results, time) → actions and
//! status. Pure: no IO, no clock. Upstream: `pkg/kubelet`.
//!
//! [`PodWorker`] is the state of one pod. The rest are functions of the pod object: [`env`], [`dns`], [`etc_hosts`],
//! [`hostname`], [`qos`].

mod adoption;
pub mod back_off;
pub mod container;
pub mod dns;
pub mod env;
pub mod etc_hosts;
pub mod hostname;
mod init_containers;
mod observation;
mod outcomes;
mod plan;
mod pod_worker;
pub mod prober;
pub mod qos;
pub mod restart_policy;
mod status;
mod termination;

pub use observation::{Adopted, ExitedContainer, Observation, RunningContainer, StartFailure};
pub use plan::{Action, Plan, PodEvent};
pub use pod_worker::{PodWorker, Settings};
pub use status::RUNTIME;

#[cfg(test)]
mod tests;
