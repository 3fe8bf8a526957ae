//! The kinds of the group `coordination.k8s.io`. Upstream: `pkg/apis/coordination`,
//! `pkg/registry/coordination`.

pub(crate) mod lease;
pub(crate) mod lease_candidate;
