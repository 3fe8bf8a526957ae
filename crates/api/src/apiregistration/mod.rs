//! The kind of the group `apiregistration.k8s.io`. Upstream: `k8s.io/kube-aggregator`.

pub(crate) mod api_service;
