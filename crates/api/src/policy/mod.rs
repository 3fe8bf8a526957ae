//! The kinds of the group `policy`. Upstream: `pkg/apis/policy`, `pkg/registry/policy`.

pub(crate) mod pod_disruption_budget;

#[cfg(test)]
mod tests;
