//! Pods. Upstream: `pkg/registry/core/pod`.

mod binding;
mod eviction;
