//! The kinds of the group `apps`. Upstream: `pkg/apis/apps`, `pkg/registry/apps`.

pub(crate) mod controller_revision;
pub(crate) mod daemon_set;
pub(crate) mod deployment;
pub(crate) mod replica_set;
pub(crate) mod stateful_set;
pub(crate) mod template;

#[cfg(test)]
mod tests;
