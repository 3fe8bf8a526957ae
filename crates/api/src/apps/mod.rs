//! The kinds of the group `apps`. Upstream: `pkg/apis/apps`, `pkg/registry/apps`.

pub(crate) mod deployment;
pub(crate) mod replica_set;
pub(crate) mod template;
