//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy. Upstream: `pkg/apis/admissionregistration`.

use super::{FACTS, default_match, param_kind, rules};
use crate::access::{Read, Write};
use crate::at::{At, qualified_name, subdomain};
use crate::strategy::{Errors, Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, integer, text};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, names};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const AUDIT_ANNOTATIONS_MAX: usize = 20;
const AUDIT_EXPRESSION_MAX: usize = 5 * 1024;

/// Words of the expression language that name nothing.
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

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
        check_common(&spec, errors);
        let is_empty = |list: &str| spec.list(list).is_empty();
        if is_empty("validations") && is_empty("auditAnnotations") {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.push(spec.child("validations").required(detail));
            errors.push(spec.child("auditAnnotations").required(detail));
        }
        for validation in spec.each("validations") {
            validate_validation(&validation, errors);
        }
        validate_audit_annotations(&spec, policy.name(), errors);
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
        check_common(&spec, errors);
        rules::validate_mutable(&spec.child("matchConstraints"), errors);
        if spec.list("mutations").is_empty() {
            let mutations = spec.child("mutations");
            errors.push(mutations.required("mutations must contain at least one item"));
        }
        for mutation in spec.each("mutations") {
            validate_mutation(&mutation, errors);
        }
        let policies = ["IfNeeded", "Never"];
        spec.require_one_of("reinvocationPolicy", &policies, errors);
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

/// What both sorts of policies have; upstream compiles the expressions, too.
fn check_common(spec: &At<'_>, errors: &mut Errors) {
    spec.require_one_of("failurePolicy", &["Fail", "Ignore"], errors);
    if let Some(kind) = spec.present("paramKind") {
        validate_param_kind(&kind, errors);
    }
    let constraints = spec.child("matchConstraints");
    if constraints.is_null() {
        errors.push(constraints.required(""));
    } else {
        rules::validate_match(&constraints, errors);
        if constraints.list("resourceRules").is_empty() {
            errors.push(constraints.child("resourceRules").required(""));
        }
    }
    rules::validate_conditions(spec, errors);
    for variable in spec.each("variables") {
        let name = variable.child("name");
        if name.as_text().trim().is_empty() {
            errors.push(name.required("name is not specified"));
        } else if !is_identifier(name.as_text()) {
            errors.push(name.invalid("must be a valid CEL identifier"));
        }
        require_expression(
            &variable.child("expression"),
            "expression is not specified",
            errors,
        );
    }
}

fn require_expression(expression: &At<'_>, detail: &str, errors: &mut Errors) {
    if expression.as_text().trim().is_empty() {
        errors.push(expression.required(detail));
    }
}

/// An identifier of the expression language.
fn is_identifier(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(fits) && !RESERVED.contains(&name)
}

fn validate_param_kind(kind: &At<'_>, errors: &mut Errors) {
    let version = kind.child("apiVersion");
    let text = version.as_text();
    let mut invalid =
        |value: &str, detail: &str| errors.push(FieldError::invalid(&version.path, value, detail));
    let joined = |reasons: Vec<String>| (!reasons.is_empty()).then(|| reasons.join(","));
    if text.is_empty() {
        errors.push(version.required(""));
    } else if text.matches('/').count() > 1 {
        invalid(text, &format!("unexpected GroupVersion string: {text}"));
    } else {
        let (group, version) = text.split_once('/').unwrap_or(("", text));
        if let Some(reasons) = joined(subdomain(group)).filter(|_| !group.is_empty()) {
            invalid(group, &reasons);
        }
        if version.is_empty() {
            invalid(text, "version must be specified");
        } else if let Some(reasons) = joined(names::is_dns1035_label(version)) {
            invalid(version, &reasons);
        }
    }
    if kind.require("kind", errors)
        && let Some(reasons) = joined(names::is_dns1035_label(&kind.text("kind").to_lowercase()))
    {
        let detail = format!("may have mixed case, but should otherwise match: {reasons}");
        errors.push(kind.child("kind").invalid(&detail));
    }
}

fn validate_validation(validation: &At<'_>, errors: &mut Errors) {
    require_expression(
        &validation.child("expression"),
        "expression is not specified",
        errors,
    );
    for key in ["messageExpression", "message"] {
        let text = validation.child(key);
        let trimmed = text.as_text().trim();
        if trimmed.is_empty() && !text.as_text().is_empty() {
            errors.push(text.invalid("must be non-empty if specified"));
        } else if key == "message" && trimmed.contains(['\n', '\r']) {
            errors.push(text.invalid("must not contain line breaks"));
        }
    }
    if let Some(reason) = validation.present("reason") {
        let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        reason.one_of(&reasons, errors);
    }
}

fn validate_audit_annotations(spec: &At<'_>, policy: &str, errors: &mut Errors) {
    if spec.list("auditAnnotations").len() > AUDIT_ANNOTATIONS_MAX {
        let detail = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        errors.push(spec.child("auditAnnotations").invalid(&detail));
    }
    let mut seen = BTreeSet::new();
    for annotation in spec.each("auditAnnotations") {
        let key = annotation.child("key");
        let name = format!("{policy}/{}", key.as_text());
        for reason in qualified_name(&name) {
            errors.push(FieldError::invalid(&key.path, name.as_str(), &reason));
        }
        let expression = annotation.child("valueExpression");
        require_expression(&expression, "valueExpression is not specified", errors);
        if expression.as_text().trim().len() > AUDIT_EXPRESSION_MAX {
            let detail = format!("must not exceed {AUDIT_EXPRESSION_MAX} bytes in length");
            errors.push(expression.required(&detail));
        }
        if !seen.insert(key.as_text()) {
            errors.push(key.duplicate());
        }
    }
}

fn validate_mutation(mutation: &At<'_>, errors: &mut Errors) {
    let kinds = ["ApplyConfiguration", "JSONPatch"];
    if !mutation.require("patchType", errors) {
        return;
    }
    let kind = mutation.child("patchType");
    let (own, other) = match kind.as_text() {
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        _ => {
            errors.push(kind.not_supported(&kinds));
            return;
        }
    };
    let patch = mutation.child(own);
    let detail = |must: &str| format!("{must} be specified when patchType is {}", kind.as_text());
    if patch.is_null() {
        errors.push(patch.required(&detail("must")));
    } else {
        require_expression(&patch.child("expression"), "", errors);
    }
    if mutation.has(other) {
        let path = mutation.path.child(other);
        let value = format!("{{{other}}}");
        errors.push(FieldError::invalid(&path, value, &detail("must not")));
    }
}
