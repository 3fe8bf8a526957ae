//! Role. Upstream: `pkg/apis/rbac`, `pkg/registry/rbac/role`.

use crate::access::Read;
use crate::at::At;
use crate::rbac::FACTS;
use crate::strategy::{Errors, Kind};
use coracle_meta::FieldPath;

pub(crate) static STRATEGY: Kind = Kind {
    check: |role, errors| {
        for rule in At::new(role, FieldPath::default()).each("rules") {
            validate_rule(&rule, true, errors);
        }
    },
    ..Kind::new(FACTS)
};

/// What is wrong with a rule of a role.
pub(crate) fn validate_rule(rule: &At<'_>, namespaced: bool, errors: &mut Errors) {
    let is_empty = |key: &str| rule.value().list(key).is_empty();
    if is_empty("verbs") {
        let verbs = rule.child("verbs");
        errors.push(verbs.required("verbs must contain at least one value"));
    }
    if !is_empty("nonResourceURLs") {
        let urls = rule.child("nonResourceURLs");
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(urls.invalid(detail));
        }
        if !is_empty("apiGroups") || !is_empty("resources") || !is_empty("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(urls.invalid(detail));
        }
        return;
    }
    for (key, detail) in [
        ("apiGroups", "resource rules must supply at least one api group"),
        ("resources", "resource rules must supply at least one resource"),
    ] {
        if is_empty(key) {
            errors.push(rule.child(key).required(detail));
        }
    }
}
