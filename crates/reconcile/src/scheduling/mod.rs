//! Which nodes a pod accepts: facts that the scheduler and the controllers that place pods themselves must agree on.
//! Upstream: `k8s.io/component-helpers/scheduling/corev1`.

mod node_affinity;
mod taints;

pub use node_affinity::{NodeSelectorTerm, RequiredNodeAffinity};
pub use taints::{
    NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE, forbids_scheduling, tolerates, untolerated_taint,
};
