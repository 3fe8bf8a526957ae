//! PodSpec and PodTemplateSpec, shared by pods and everything that makes them.
//! Upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation`.

mod containers;
mod defaults;
mod env;
mod image;
mod paths;
mod probes;
mod scheduling;
mod security_context;
mod validation;
mod volume_mounts;
mod volumes;
pub(crate) mod warnings;

#[cfg(test)]
mod tests;

pub(crate) use containers::validate_image_for_pod;
pub(crate) use defaults::{
    default_network_volume, default_persistent_volume_claim_spec, default_pod_spec, default_template,
};
pub(crate) use probes::validate_port;
pub(crate) use scheduling::{validate_node_selector, validate_taint_effect, validate_tolerations};
pub(crate) use validation::{Place, validate_annotations, validate_pod_spec, validate_template};
pub(crate) use volumes::validate_csi_driver;
