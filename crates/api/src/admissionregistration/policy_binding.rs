//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding. Upstream:
//! `pkg/apis/admissionregistration`.

use super::{FACTS, default_match};
use crate::access::{Read, Write};
use crate::at::At;
use crate::strategy::Kind;
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, Selector};
use jiff::Timestamp;
use serde_json::Value;

static TABLE: TableSpec = TableSpec {
    columns: &[NAME, text("PolicyName"), text("ParamRef"), AGE],
    cells,
};

pub(crate) static VALIDATING: Kind = Kind {
    table: &TABLE,
    default,
    check: |binding, errors| {
        let spec = At::top(binding, "spec");
        spec.require("policyName", errors);
        if spec.list("validationActions").is_empty() {
            errors.push(spec.child("validationActions").required(""));
        }
        for action in spec.each("validationActions") {
            action.one_of(&["Audit", "Deny", "Warn"], errors);
        }
        let actions = spec.texts("validationActions");
        if actions.contains(&"Deny") && actions.contains(&"Warn") {
            let path = spec.path.child("validationActions");
            let value = spec.sub("validationActions").clone();
            let detail = "must not contain both Deny and Warn (repeating the same validation failure information in \
                          the API response and headers serves no purpose)";
            errors.push(FieldError::invalid(&path, value, detail));
        }
    },
    ..Kind::new(FACTS)
};

pub(crate) static MUTATING: Kind = Kind {
    table: &TABLE,
    default,
    check: |binding, errors| {
        At::top(binding, "spec").require("policyName", errors);
    },
    ..Kind::new(FACTS)
};

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
