//! Namespaces. Upstream: `pkg/registry/core/namespace`.

pub(crate) mod finalize;
