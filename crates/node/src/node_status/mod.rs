//! The Node object: registered at the start, its status kept true. Upstream: `kubelet_node_status.go`,
//! `pkg/kubelet/nodestatus`.

mod lease;
mod machine;
mod registration;

pub use lease::run as run_lease;
pub use machine::Resources;
pub use registration::{pod_cidrs, register, run};
