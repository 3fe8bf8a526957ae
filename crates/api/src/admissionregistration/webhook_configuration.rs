//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration. Upstream:
//! `validateValidatingWebhookConfiguration` and its twin in `pkg/apis/admissionregistration/validation`.

use super::{FACTS, default_rules, rules};
use crate::access::{Read, Write};
use crate::at::{At, subdomain};
use crate::label_selector;
use crate::strategy::{Errors, Kind};
use crate::table::{AGE, NAME, TableSpec, age, integer};
use crate::webhook::{validate_client_config, validate_review_versions};
use coracle_meta::FieldPath;
use coracle_meta::object::ObjectExt;
use serde_json::Value;
use std::collections::BTreeSet;

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
        validate_webhook(&webhook, mutating, errors);
        let name = webhook.text("name").to_owned();
        if !name.is_empty() && !seen.insert(name) {
            errors.push(webhook.child("name").duplicate());
        }
    }
}

fn validate_webhook(webhook: &At<'_>, mutating: bool, errors: &mut Errors) {
    validate_name(&webhook.child("name"), errors);
    for rule in webhook.each("rules") {
        rules::validate_rule(&rule, errors);
    }
    for (key, allowed) in [
        ("failurePolicy", ["Fail", "Ignore"]),
        ("matchPolicy", ["Equivalent", "Exact"]),
        ("sideEffects", ["None", "NoneOnDryRun"]),
    ] {
        if let Some(field) = webhook.present(key) {
            field.one_of(&allowed, errors);
        } else if key == "sideEffects" {
            let field = webhook.child(key);
            errors.push(field.required("must specify one of None, NoneOnDryRun"));
        }
    }
    let timeout = webhook.child("timeoutSeconds");
    let is_out = |seconds: i64| !(1..=30).contains(&seconds);
    if timeout.as_i64().is_some_and(is_out) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.push(timeout.invalid(detail));
    }
    for key in ["namespaceSelector", "objectSelector"] {
        label_selector::validate(&webhook.child(key), errors);
    }
    if mutating && let Some(policy) = webhook.present("reinvocationPolicy") {
        policy.one_of(&["IfNeeded", "Never"], errors);
    }
    validate_client_config(&webhook.child("clientConfig"), errors);
    rules::validate_conditions(webhook, errors);
    let versions = webhook.child("admissionReviewVersions");
    validate_review_versions(&versions, "must specify one of v1, v1beta1", errors);
}

/// Names are like domains, so that those of two vendors differ.
fn validate_name(name: &At<'_>, errors: &mut Errors) {
    let text = name.as_text();
    let reasons = subdomain(text);
    if text.is_empty() {
        errors.push(name.required(""));
    } else if !reasons.is_empty() {
        errors.push(name.invalid(&reasons.join(",")));
    } else if text.split('.').count() < 3 {
        errors.push(name.invalid("should be a domain with at least three segments separated by dots"));
    }
}
