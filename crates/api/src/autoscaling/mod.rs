//! The kinds of the group `autoscaling`. Upstream: `pkg/apis/autoscaling`, `pkg/registry/autoscaling`.

pub(crate) mod horizontal_pod_autoscaler;

#[cfg(test)]
mod tests;
