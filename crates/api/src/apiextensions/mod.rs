//! The kind of the group `apiextensions.k8s.io`. Upstream: `k8s.io/apiextensions-apiserver`.

pub(crate) mod custom_resource_definition;

#[cfg(test)]
mod tests;
