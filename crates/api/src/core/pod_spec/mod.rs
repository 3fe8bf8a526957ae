//! PodSpec and PodTemplateSpec, shared by pods and everything that makes them.
//! Upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation`.

mod defaults;
mod image;

pub(crate) use defaults::{default_persistent_volume_claim_spec, default_pod_spec, default_template};
