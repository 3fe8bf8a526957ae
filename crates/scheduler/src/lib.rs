//! The scheduler: which node a pod goes to. Pure: [`schedule`] decides about one pod on a [`Snapshot`];
//! [`Scheduler`] is the machine around it, with the queue and the places that it has given away.
//! Upstream: `pkg/scheduler`. One file a plugin in `plugins`.

mod node_info;
mod plugins;
mod pod_info;
mod preemption;
mod queue;
mod resources;
mod schedule;
mod scheduler;
mod snapshot;

pub use node_info::NodeInfo;
pub use pod_info::PodInfo;
pub use resources::Resources;
pub use schedule::{Decision, Unfit, schedule};
pub use scheduler::Scheduler;
pub use snapshot::Snapshot;
