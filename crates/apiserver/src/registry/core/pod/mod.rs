//! Pods. Upstream: `pkg/registry/core/pod`.

mod binding;
pub(crate) mod ephemeral_containers;
mod eviction;
pub(crate) mod resize;
