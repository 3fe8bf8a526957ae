//! The kinds of the group `discovery.k8s.io`. Upstream: `pkg/apis/discovery`, `pkg/registry/discovery`.

pub(crate) mod endpoint_slice;
