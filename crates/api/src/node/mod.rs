//! The kinds of the group `node.k8s.io`. Upstream: `pkg/apis/node`, `pkg/registry/node`.

pub(crate) mod runtime_class;
