//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration. Upstream:
//! `validateValidatingWebhookConfiguration` and its twin in `pkg/apis/admissionregistration/validation`.

use super::{FACTS, default_rules};
use crate::access::{Read, Write};
use crate::at::{At, qualified_name};
use crate::label_selector;
use crate::strategy::{Errors, Kind};
use crate::table::{AGE, NAME, TableSpec, age, integer};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, FieldPath, names};
use serde_json::Value;
use std::collections::BTreeSet;

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

static TABLE: TableSpec = TableSpec {
    columns: &[NAME, integer("Webhooks"), AGE],
    cells: |configuration, now| {
        let webhooks = configuration.list("webhooks").len();
        vec![
            configuration.name().into(),
            webhooks.into(),
            age(configuration, now),
        ]
    },
};

pub(crate) static VALIDATING: Kind = Kind {
    table: &TABLE,
    default,
    check: |configuration, errors| check(configuration, false, errors),
    ..Kind::new(FACTS)
};

pub(crate) static MUTATING: Kind = Kind {
    table: &TABLE,
    default: |configuration| {
        default(configuration);
        for webhook in configuration.items("webhooks") {
            webhook.fill("reinvocationPolicy", "Never");
        }
    },
    check: |configuration, errors| check(configuration, true, errors),
    ..Kind::new(FACTS)
};

fn default(configuration: &mut Value) {
    for webhook in configuration.items("webhooks") {
        webhook.fill("failurePolicy", "Fail");
        webhook.fill("matchPolicy", "Equivalent");
        webhook.object("namespaceSelector");
        webhook.object("objectSelector");
        webhook.fill("timeoutSeconds", 10);
        default_rules(webhook, "rules");
        if let Some(service) = webhook.object("clientConfig").existing("service") {
            service.fill("port", 443);
        }
    }
}

fn check(configuration: &Value, mutating: bool, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for webhook in At::new(configuration, FieldPath::default()).each("webhooks") {
        validate_webhook(&webhook, errors);
        if mutating && webhook.has("reinvocationPolicy") {
            let policy = webhook.child("reinvocationPolicy");
            policy.one_of(&["IfNeeded", "Never"], errors);
        }
        let name = webhook.text("name").to_owned();
        if !name.is_empty() && !seen.insert(name) {
            errors.push(webhook.child("name").duplicate());
        }
    }
}

fn validate_webhook(webhook: &At<'_>, errors: &mut Errors) {
    let name = webhook.child("name");
    name.form(names::is_dns1123_subdomain, errors);
    if name.as_text().split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(&name.path, name.as_text(), detail));
    }
    for rule in webhook.each("rules") {
        validate_rule(&rule, errors);
    }
    for (key, allowed) in [
        ("failurePolicy", &["Fail", "Ignore"]),
        ("matchPolicy", &["Equivalent", "Exact"]),
        ("sideEffects", &["None", "NoneOnDryRun"]),
    ] {
        let field = webhook.child(key);
        if key == "sideEffects" && field.is_null() {
            let detail = "must specify one of None, NoneOnDryRun";
            errors.push(field.required(detail));
        } else if !field.is_null() {
            field.one_of(allowed, errors);
        }
    }
    let timeout = webhook.child("timeoutSeconds");
    if timeout
        .as_i64()
        .is_some_and(|seconds| !(1..=30).contains(&seconds))
    {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(timeout.invalid(detail));
    }
    for key in ["namespaceSelector", "objectSelector"] {
        label_selector::validate(&webhook.child(key), errors);
    }
    let config = webhook.child("clientConfig");
    if config.has("url") == config.has("service") {
        errors.push(config.required("exactly one of url or service is required"));
    }
    if let Some(service) = config.present("service") {
        service.require("name", errors);
        service.require("namespace", errors);
        service.range("port", 1, 65535, errors);
    }
    let versions = webhook.child("admissionReviewVersions");
    let accepted = webhook.texts("admissionReviewVersions");
    if accepted.is_empty() {
        errors.push(versions.required("must specify one of v1, v1beta1"));
    } else if !accepted
        .iter()
        .any(|version| matches!(*version, "v1" | "v1beta1"))
    {
        errors.push(versions.invalid("must include at least one of v1, v1beta1"));
    }
    for condition in webhook.each("matchConditions") {
        condition.require_form("name", qualified_name, errors);
        condition.require("expression", errors);
    }
}

fn validate_rule(rule: &At<'_>, errors: &mut Errors) {
    for key in ["operations", "apiGroups", "apiVersions", "resources"] {
        let list = rule.child(key);
        let values = rule.texts(key);
        if values.is_empty() {
            errors.push(list.required(""));
        }
        if key != "resources" && values.len() > 1 && values.contains(&"*") {
            let detail = if key == "operations" {
                "if '*' is present, must not specify other operations"
            } else if key == "apiGroups" {
                "if '*' is present, must not specify other API groups"
            } else {
                "if '*' is present, must not specify other API versions"
            };
            errors.push(list.invalid(detail));
        }
    }
    for operation in rule.each("operations") {
        operation.one_of(OPERATIONS, errors);
    }
    if let Some(scope) = rule.present("scope") {
        scope.one_of(&["*", "Cluster", "Namespaced"], errors);
    }
}
