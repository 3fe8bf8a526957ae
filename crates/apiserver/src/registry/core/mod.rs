//! What single kinds of the core group need beyond the generic registry. Upstream: `pkg/registry/core`.

pub(crate) mod component_status;
pub(crate) mod pod;
pub mod service;
