//! The kinds of the group `rbac.authorization.k8s.io`. Upstream: `pkg/apis/rbac`, `pkg/registry/rbac`.

pub(crate) mod cluster_role;
pub(crate) mod cluster_role_binding;
pub(crate) mod role;
pub(crate) mod role_binding;

use crate::strategy::{Facts, NameRule};

/// The API group.
const GROUP: &str = "rbac.authorization.k8s.io";

/// All kinds of the group; cluster-wide ones override the scope.
const FACTS: Facts = Facts {
    name: NameRule::PathSegment,
    create_on_update: true,
    ..Facts::NAMESPACED_DATA
};

#[cfg(test)]
mod tests;
