//! The kinds of the group `flowcontrol.apiserver.k8s.io`. Upstream: `pkg/apis/flowcontrol`,
//! `pkg/registry/flowcontrol`.

pub(crate) mod flow_schema;
pub(crate) mod priority_level_configuration;
