//! The kinds of the group `networking.k8s.io`. Upstream: `pkg/apis/networking`, `pkg/registry/networking`.

pub(crate) mod ingress;
pub(crate) mod ingress_class;
pub(crate) mod ip_address;
pub(crate) mod network_policy;
pub(crate) mod service_cidr;

#[cfg(test)]
mod tests;
