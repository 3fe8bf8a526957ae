//! Reads container logs in the CRI format across rotated files, and follows them.
//! Upstream: `k8s.io/cri-client/pkg/logs`, `pkg/kubelet/logs`.

mod format;
mod reader;
pub mod rotation;

pub use format::Options;
pub use reader::{Source, stream, tail_for_message};
