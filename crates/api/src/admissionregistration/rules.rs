//! What webhooks and policies match: rules about resources, conditions. Upstream: `validateRuleWithOperations`,
//! `validateMatchResources`, `validateMatchConditions`.

use crate::access::Read;
use crate::at::{At, qualified_name};
use crate::label_selector;
use crate::object_meta::path_segment;
use crate::strategy::Errors;
use coracle_meta::FieldError;
use std::collections::BTreeSet;

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const CONDITIONS_MAX: usize = 64;

/// Operations on resources of groups and versions.
pub(super) fn validate_rule(rule: &At<'_>, errors: &mut Errors) {
    let lists = [
        ("operations", "operations"),
        ("apiGroups", "API groups"),
        ("apiVersions", "API versions"),
    ];
    for (key, what) in lists {
        let (list, values) = (rule.child(key), rule.texts(key));
        if values.is_empty() {
            errors.push(list.required(""));
        }
        if values.len() > 1 && values.contains(&"*") {
            errors.push(list.invalid(&format!("if '*' is present, must not specify other {what}")));
        }
        for value in rule.each(key) {
            match key {
                "operations" => value.one_of(OPERATIONS, errors),
                "apiVersions" if value.as_text().is_empty() => errors.push(value.required("")),
                _ => {}
            }
        }
    }
    validate_resources(rule, errors);
    if let Some(scope) = rule.present("scope") {
        scope.one_of(&["*", "Cluster", "Namespaced"], errors);
    }
}

/// Resources and subresources; a wildcard makes others of its sort superfluous.
fn validate_resources(rule: &At<'_>, errors: &mut Errors) {
    let resources = rule.child("resources");
    let names = rule.texts("resources");
    if names.is_empty() {
        errors.push(resources.required(""));
    }
    let (mut any_subresource_of, mut of_any_resource) = (BTreeSet::new(), BTreeSet::new());
    for name in rule.each("resources") {
        let text = name.as_text();
        if text.is_empty() {
            errors.push(name.required(""));
        }
        let Some((resource, subresource)) = text.split_once('/') else {
            continue;
        };
        let mut covered = |by: String| {
            let detail = format!("if '{by}' is present, must not specify {text}");
            errors.push(name.invalid(&detail));
        };
        if any_subresource_of.contains(resource) {
            covered(format!("{resource}/*"));
        }
        if of_any_resource.contains(subresource) {
            covered(format!("*/{subresource}"));
        }
        if subresource == "*" {
            any_subresource_of.insert(resource.to_owned());
        }
        if resource == "*" {
            of_any_resource.insert(subresource.to_owned());
        }
    }
    if names.len() > 1 && names.contains(&"*/*") {
        errors.push(resources.invalid("if '*/*' is present, must not specify other resources"));
    }
    // Upstream looks at the last name without a subresource only.
    let last = names.iter().rfind(|name| !name.is_empty() && !name.contains('/'));
    if names.contains(&"*") && last.is_some_and(|last| *last != "*") {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(resources.invalid(detail));
    }
}

/// The resources that a policy or binding is for.
pub(super) fn validate_match(resources: &At<'_>, errors: &mut Errors) {
    if resources.is_null() {
        return;
    }
    let policies = ["Equivalent", "Exact"];
    resources.require_one_of("matchPolicy", &policies, errors);
    for key in ["namespaceSelector", "objectSelector"] {
        label_selector::validate(&resources.child(key), errors);
    }
    for rule in ["resourceRules", "excludeResourceRules"]
        .iter()
        .flat_map(|list| resources.each(list))
    {
        let mut seen = BTreeSet::new();
        for name in rule.each("resourceNames") {
            name.form(|name| path_segment(name, false), errors);
            if !seen.insert(name.as_text()) {
                errors.push(name.duplicate());
            }
        }
        validate_rule(&rule, errors);
    }
}

/// Mutation is for what is written.
pub(super) fn validate_mutable(resources: &At<'_>, errors: &mut Errors) {
    let path = resources.path.child("resourceRules").child("operations");
    for operation in resources
        .each("resourceRules")
        .flat_map(|rule| rule.each("operations"))
    {
        let allowed = ["*", "CONNECT", "CREATE", "UPDATE"];
        if !allowed.contains(&operation.as_text()) {
            errors.push(FieldError::not_supported(&path, operation.as_text(), &allowed));
        }
    }
}

/// Named expressions.
pub(super) fn validate_conditions(holder: &At<'_>, errors: &mut Errors) {
    let count = holder.list("matchConditions").len();
    if count > CONDITIONS_MAX {
        let path = holder.path.child("matchConditions");
        errors.push(FieldError::too_many(&path, count, CONDITIONS_MAX));
    }
    let mut seen = BTreeSet::new();
    for condition in holder.each("matchConditions") {
        if condition.text("expression").trim().is_empty() {
            errors.push(condition.child("expression").required(""));
        }
        condition.require_form("name", qualified_name, errors);
        let name = condition.value().text("name");
        if !name.is_empty() && !seen.insert(name) {
            errors.push(condition.child("name").duplicate());
        }
    }
}
