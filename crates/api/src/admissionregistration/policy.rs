//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy. Upstream: `pkg/apis/admissionregistration`.

use super::{FACTS, default_match, param_kind};
use crate::access::{Read, Write};
use crate::at::At;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, integer, text};
use coracle_meta::object::ObjectExt;
use serde_json::{Value, json};

pub(crate) static VALIDATING: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, integer("Validations"), text("ParamKind"), AGE],
        cells: |policy, now| {
            let spec = policy.sub("spec");
            let validations = spec.list("validations").len();
            vec![
                policy.name().into(),
                validations.into(),
                param_kind(spec),
                age(policy, now),
            ]
        },
    },
    default,
    prepare_for_create: |policy| policy.put("status", json!({})),
    check: |policy, errors| {
        let spec = At::top(policy, "spec");
        let is_empty = |list: &str| spec.list(list).is_empty();
        if is_empty("validations") && is_empty("auditAnnotations") {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.push(spec.child("validations").required(detail));
            errors.push(spec.child("auditAnnotations").required(detail));
        }
        check_common(&spec, errors);
    },
    ..Kind::new(Facts {
        status: true,
        ..FACTS
    })
};

pub(crate) static MUTATING: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, integer("Mutations"), text("ParamKind"), AGE],
        cells: |policy, now| {
            let spec = policy.sub("spec");
            let mutations = spec.list("mutations").len();
            vec![
                policy.name().into(),
                mutations.into(),
                param_kind(spec),
                age(policy, now),
            ]
        },
    },
    default,
    check: |policy, errors| {
        let spec = At::top(policy, "spec");
        if spec.list("mutations").is_empty() {
            let mutations = spec.child("mutations");
            errors.push(mutations.required("mutations must contain at least one item"));
        }
        check_common(&spec, errors);
    },
    ..Kind::new(FACTS)
};

fn default(policy: &mut Value) {
    let spec = policy.object("spec");
    spec.fill("failurePolicy", "Fail");
    if let Some(resources) = spec.existing("matchConstraints") {
        default_match(resources);
    }
}

fn check_common(spec: &At<'_>, errors: &mut crate::strategy::Errors) {
    spec.require_one_of("failurePolicy", &["Fail", "Ignore"], errors);
    let constraints = spec.child("matchConstraints");
    if constraints.is_null() {
        errors.push(constraints.required(""));
    } else if constraints.list("resourceRules").is_empty() {
        errors.push(constraints.child("resourceRules").required(""));
    }
}
