//! The kinds of the group `batch`. Upstream: `pkg/apis/batch`, `pkg/registry/batch`.

pub(crate) mod cron_job;
pub(crate) mod job;

#[cfg(test)]
mod tests;
