//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding. Upstream:
//! `pkg/apis/admissionregistration`.

use super::{FACTS, default_match, rules};
use crate::access::{Read, Write};
use crate::at::{At, subdomain};
use crate::label_selector;
use crate::object_meta::path_segment;
use crate::strategy::{Errors, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::Selector;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

static TABLE: TableSpec = TableSpec {
    columns: &[NAME, text("PolicyName"), text("ParamRef"), AGE],
    cells,
};

pub(crate) static VALIDATING: Kind = Kind {
    table: &TABLE,
    default,
    check: |binding, errors| {
        let spec = At::top(binding, "spec");
        check_common(&spec, errors);
        validate_actions(&spec, errors);
    },
    ..Kind::new(FACTS)
};

pub(crate) static MUTATING: Kind = Kind {
    table: &TABLE,
    default,
    check: |binding, errors| {
        let spec = At::top(binding, "spec");
        check_common(&spec, errors);
        rules::validate_mutable(&spec.child("matchResources"), errors);
    },
    ..Kind::new(FACTS)
};

fn check_common(spec: &At<'_>, errors: &mut Errors) {
    spec.require_form("policyName", subdomain, errors);
    if let Some(reference) = spec.present("paramRef") {
        validate_parameters(&reference, errors);
    }
    rules::validate_match(&spec.child("matchResources"), errors);
}

/// The parameters of a policy have a name or are selected.
fn validate_parameters(reference: &At<'_>, errors: &mut Errors) {
    const BOTH: &str = "name and selector are mutually exclusive";
    let has_name = !reference.text("name").is_empty();
    reference.optional_form("name", |name| path_segment(name, false), errors);
    if has_name && reference.has("selector") {
        errors.push(reference.child("name").forbidden(BOTH));
    }
    if let Some(selector) = reference.present("selector") {
        label_selector::validate(&selector, errors);
        if has_name {
            errors.push(selector.forbidden(BOTH));
        }
    } else if !has_name {
        errors.push(reference.required("one of name or selector must be specified"));
    }
    reference.require_one_of("parameterNotFoundAction", &["Deny", "Allow"], errors);
}

fn validate_actions(spec: &At<'_>, errors: &mut Errors) {
    let actions = spec.texts("validationActions");
    let mut seen = BTreeSet::new();
    for action in spec.each("validationActions") {
        action.one_of(&["Audit", "Deny", "Warn"], errors);
        if !seen.insert(action.as_text()) {
            errors.push(action.duplicate());
        }
    }
    let list = spec.child("validationActions");
    if actions.contains(&"Deny") && actions.contains(&"Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                      API response and headers serves no purpose)";
        errors.push(list.invalid(detail));
    }
    if actions.is_empty() {
        errors.push(list.required("at least one validation action is required"));
    }
}

fn default(binding: &mut Value) {
    if let Some(resources) = binding.object("spec").existing("matchResources") {
        default_match(resources);
    }
}

fn cells(binding: &Value, now: Timestamp) -> Vec<Value> {
    let spec = binding.sub("spec");
    let reference = spec.sub("paramRef");
    let parameter = match (reference.text("namespace"), reference.text("name")) {
        // Whether parameters without a namespace have one cannot be seen from here.
        ("", name) if !name.is_empty() => format!("*/{name}"),
        (namespace, name) if !name.is_empty() => format!("{namespace}/{name}"),
        _ if reference.has("selector") => {
            let selector = Selector::from_label_selector(reference.sub("selector"));
            selector.map_or_else(|_| String::new(), |selector| selector.to_string())
        }
        _ => "<unset>".to_owned(),
    };
    vec![
        binding.name().into(),
        spec.text("policyName").into(),
        parameter.into(),
        age(binding, now),
    ]
}
