//! CustomResourceDefinition. Upstream: `k8s.io/apiextensions-apiserver`. The schemas themselves are checked
//! where custom resources are served.

use crate::access::{Read, Write};
use crate::at::{At, subdomain};
use crate::strategy::{Errors, Facts, Kind};
use crate::webhook::{validate_client_config, validate_review_versions};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, FieldPath, names};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];

pub(crate) static STRATEGY: Kind = Kind {
    default,
    prepare_for_create: |definition| {
        definition.put(
            "status",
            json!({"conditions": null, "acceptedNames": {"kind": "", "plural": ""}}),
        );
        record_stored_version(definition);
    },
    prepare_for_update: |definition, _| record_stored_version(definition),
    check,
    check_update: Some(check_update),
    ..Kind::new(Facts {
        unconditional_update: false,
        ..Facts::CLUSTER
    })
};

fn default(definition: &mut Value) {
    let spec = definition.object("spec");
    let names = spec.object("names");
    let kind = names.text("kind").to_owned();
    if !kind.is_empty() {
        names.fill_text("singular", &kind.to_lowercase());
        names.fill_text("listKind", &format!("{kind}List"));
    }
    spec.fill("conversion", json!({"strategy": "None"}));
    if let Some(service) = spec
        .existing("conversion")
        .and_then(|conversion| conversion.existing("webhook"))
        .and_then(|webhook| webhook.existing("clientConfig"))
        .and_then(|config| config.existing("service"))
    {
        service.fill("port", 443);
    }
}

/// Every version that objects were ever stored in is remembered until they have been moved.
fn record_stored_version(definition: &mut Value) {
    let versions = definition.sub("spec").list("versions");
    let Some(storage) = versions
        .iter()
        .find(|version| version.flag("storage"))
        .map(|version| version.text("name").to_owned())
    else {
        return;
    };
    let status = definition.object("status");
    let mut stored = status.list("storedVersions").to_vec();
    if !stored.iter().any(|version| *version == storage) {
        stored.push(storage.into());
        status.put("storedVersions", stored);
    }
}

fn check(definition: &Value, errors: &mut Errors) {
    let spec = At::top(definition, "spec");
    let expected = format!("{}.{}", spec.sub("names").text("plural"), spec.text("group"));
    if definition.name() != expected && !definition.name().is_empty() {
        let name = At::top(definition, "metadata").child("name");
        errors.push(name.invalid("must be spec.names.plural+\".\"+spec.group"));
    }
    check_spec(&spec, errors);
}

fn check_spec(spec: &At<'_>, errors: &mut Errors) {
    let group = spec.child("group");
    if spec.require("group", errors) {
        let reasons = subdomain(group.as_text());
        if !reasons.is_empty() {
            errors.push(group.invalid(&reasons.join(",")));
        } else if !group.as_text().contains('.') {
            errors.push(group.invalid("should be a domain with at least one dot"));
        }
    }
    spec.require_one_of("scope", &["Cluster", "Namespaced"], errors);
    if spec.flag("preserveUnknownFields") {
        let field = spec.child("preserveUnknownFields");
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        errors.push(field.invalid(detail));
    }
    let mut seen = BTreeSet::new();
    for version in spec.each("versions") {
        seen.insert(version.text("name").to_owned());
        validate_version(&version, errors);
    }
    let versions = spec.child("versions");
    if seen.len() != spec.list("versions").len() {
        errors.push(versions.invalid("must contain unique version names"));
    }
    let stored = spec
        .list("versions")
        .iter()
        .filter(|version| version.flag("storage"));
    if stored.count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(versions.invalid(detail));
    }
    validate_names(&spec.child("names"), errors);
    validate_conversion(&spec.child("conversion"), errors);
}

fn validate_version(version: &At<'_>, errors: &mut Errors) {
    joined_form(&version.child("name"), names::is_dns1035_label, "", errors);
    let schema = version.child("schema").child("openAPIV3Schema");
    if schema.is_null() {
        errors.push(schema.required(""));
    }
    if version.has("deprecationWarning") && !version.flag("deprecated") {
        let warning = version.child("deprecationWarning");
        errors.push(warning.invalid("can only be set for deprecated versions"));
    }
    for column in version.each("additionalPrinterColumns") {
        column.require("name", errors);
        let kind = column.child("type");
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        if kind.as_text().is_empty() {
            errors.push(kind.required(&detail));
        } else if !COLUMN_TYPES.contains(&kind.as_text()) {
            errors.push(kind.invalid(&detail));
        }
        column.require("jsonPath", errors);
    }
}

/// All reasons in one error, as upstream has it here.
fn joined_form(at: &At<'_>, form: fn(&str) -> Vec<String>, prefix: &str, errors: &mut Errors) {
    let reasons = form(at.as_text());
    if !reasons.is_empty() {
        let detail = format!("{prefix}{}", reasons.join(","));
        errors.push(FieldError::invalid(&at.path, at.as_text(), &detail));
    }
}

fn validate_names(named: &At<'_>, errors: &mut Errors) {
    for key in ["plural", "singular", "kind", "listKind"] {
        named.require(key, errors);
    }
    let mixed = "may have mixed case, but should otherwise match: ";
    for (key, prefix) in [
        ("plural", ""),
        ("singular", ""),
        ("kind", mixed),
        ("listKind", mixed),
    ] {
        let text = named.text(key);
        let checked = if prefix.is_empty() {
            text.to_owned()
        } else {
            text.to_lowercase()
        };
        let reasons = names::is_dns1035_label(&checked);
        if !text.is_empty() && !reasons.is_empty() {
            let detail = format!("{prefix}{}", reasons.join(","));
            errors.push(FieldError::invalid(&named.path.child(key), text, &detail));
        }
    }
    if !named.text("kind").is_empty() && named.text("kind") == named.text("listKind") {
        let list_kind = named.child("listKind");
        errors.push(list_kind.invalid("kind and listKind may not be the same"));
    }
    for list in ["shortNames", "categories"] {
        for name in named.each(list) {
            joined_form(&name, names::is_dns1035_label, "", errors);
        }
    }
}

/// Upstream reports these fields where its internal form has them.
fn validate_conversion(conversion: &At<'_>, errors: &mut Errors) {
    conversion.require_one_of("strategy", &["None", "Webhook"], errors);
    let webhook = conversion.sub("webhook");
    let moved = |key: &str, to: &str| {
        At::new(
            conversion.value().sub("webhook").sub(key),
            conversion.path.child(to),
        )
    };
    let config = moved("clientConfig", "webhookClientConfig");
    let versions = moved("conversionReviewVersions", "conversionReviewVersions");
    if conversion.text("strategy") == "Webhook" {
        if config.is_null() {
            errors.push(config.required("required when strategy is set to Webhook"));
        } else {
            validate_client_config(&config, errors);
        }
        validate_review_versions(&versions, "", errors);
        return;
    }
    let detail = "should not be set when strategy is not set to Webhook";
    if !config.is_null() {
        errors.push(config.forbidden(detail));
    }
    if !webhook.list("conversionReviewVersions").is_empty() {
        errors.push(versions.forbidden(detail));
    }
}

fn check_update(definition: &Value, old: &Value, errors: &mut Errors) {
    let spec = At::top(definition, "spec");
    check_spec(&spec, errors);
    let is_established = old
        .sub("status")
        .list("conditions")
        .iter()
        .any(|condition| condition.text("type") == "Established" && condition.text("status") == "True");
    let old_names = old.sub("spec").sub("names");
    let new_names = spec.child("names");
    if is_established {
        spec.immutable("scope", old.sub("spec"), errors);
        new_names.immutable("kind", old_names, errors);
    }
    spec.immutable("group", old.sub("spec"), errors);
    new_names.immutable("plural", old_names, errors);
    let stored = At::top(definition, "status").child("storedVersions");
    for (index, version) in definition
        .sub("status")
        .texts("storedVersions")
        .into_iter()
        .enumerate()
    {
        let is_there = spec
            .list("versions")
            .iter()
            .any(|other| other.text("name") == version);
        if !is_there {
            let path: FieldPath = stored.path.index(index);
            let detail = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in \
                 spec.versions until a storage migration ensures no data remains persisted in {version} and removes \
                 {version} from status.storedVersions"
            );
            errors.push(FieldError::invalid(&path, version, &detail));
        }
    }
}
