//! The kinds of the group `admissionregistration.k8s.io`. Upstream: `pkg/apis/admissionregistration`,
//! `pkg/registry/admissionregistration`. Expressions are checked where they are evaluated.

pub(crate) mod policy;
pub(crate) mod policy_binding;
mod rules;
pub(crate) mod webhook_configuration;

use crate::access::{Read, Write};
use crate::strategy::Facts;
use serde_json::Value;

/// All kinds of the group count generations and need a resource version to change.
const FACTS: Facts = Facts {
    status: false,
    unconditional_update: false,
    ..Facts::CLUSTER
};

/// Rules apply to every scope unless they say which.
fn default_rules(holder: &mut Value, list: &str) {
    for rule in holder.items(list) {
        rule.fill("scope", "*");
    }
}

/// What a policy or binding matches.
fn default_match(resources: &mut Value) {
    resources.fill("matchPolicy", "Equivalent");
    resources.object("namespaceSelector");
    resources.object("objectSelector");
    default_rules(resources, "resourceRules");
    default_rules(resources, "excludeResourceRules");
}

/// `VERSION/KIND` of what parametrises a policy.
fn param_kind(spec: &Value) -> Value {
    spec.field("paramKind")
        .map_or_else(
            || "<unset>".to_owned(),
            |kind| format!("{}/{}", kind.text("apiVersion"), kind.text("kind")),
        )
        .into()
}

#[cfg(test)]
mod tests;
