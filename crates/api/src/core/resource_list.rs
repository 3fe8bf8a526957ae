//! ResourceList and ResourceRequirements: maps of quantities. Stored quantities are canonical texts, rounded
//! up to thousandths, so that equal amounts are equal texts. Upstream: `SetDefaults_ResourceList`.

use crate::access::{Read, Write};
use crate::at::{At, NEGATIVE};
use crate::strategy::Errors;
use coracle_meta::{FieldError, FieldPath, Quantity, names};
use serde_json::Value;

/// The quantity in a field; a number means itself.
pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text.trim()).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// Whether the quantity is above zero.
pub(crate) fn is_positive(value: &Value) -> bool {
    quantity(value).is_some_and(|quantity| quantity.sign() > 0)
}

/// Makes a quantity its canonical text; what is none stays, for validation to complain of.
pub(crate) fn canonicalize(value: &mut Value) {
    if let Some(quantity) = quantity(value) {
        *value = Value::String(quantity.to_string());
    }
}

/// Makes the quantity in a field, if there is one, its canonical text.
pub(crate) fn canonicalize_field(holder: &mut Value, key: &str) {
    if let Some(value) = holder.existing(key) {
        canonicalize(value);
    }
}

/// Canonical quantities, rounded up to thousandths.
pub(crate) fn default_list(list: &mut Value) {
    let Some(list) = list.as_object_mut() else { return };
    for value in list.values_mut() {
        let Some(exact) = quantity(value) else { continue };
        let rounded = Quantity::from_milli(exact.milli_value(), exact.format());
        // Amounts beyond what thousandths can count are whole anyway.
        *value = if rounded > exact {
            rounded.to_string().into()
        } else {
            exact.to_string().into()
        };
    }
}

/// Canonical limits and requests.
pub(crate) fn default_requirements(resources: &mut Value) {
    for key in ["limits", "requests"] {
        if let Some(list) = resources.existing(key) {
            default_list(list);
        }
    }
}

/// The quantity of a name in a list as text, `0` if absent.
pub(crate) fn text_of(list: &Value, name: &str) -> String {
    list.field(name)
        .and_then(quantity)
        .map_or_else(|| "0".to_owned(), |quantity| quantity.to_string())
}

/// Names without a domain that are resources of something.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// Resources that are counted.
const INTEGER: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Kubernetes' own: without a domain or in one of its.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::is_label_key(&format!("requests.{name}")).is_empty()
}

/// Whether more may be promised than there is.
fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// The name of a resource, at its own path.
pub(crate) fn validate_name(name: &str, path: &FieldPath, errors: &mut Errors) -> bool {
    let reasons = names::is_label_key(name);
    for reason in &reasons {
        errors.push(FieldError::invalid(path, name, reason));
    }
    let is_known = name.contains('/')
        || STANDARD.contains(&name)
        || is_huge_page(name)
        || name.starts_with("requests.hugepages-");
    if reasons.is_empty() && !is_known {
        let detail = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(path, name, detail));
    }
    reasons.is_empty() && is_known
}

/// The name of a resource that a container can have.
pub(crate) fn validate_container_name(name: &str, path: &FieldPath, errors: &mut Errors) {
    validate_name(name, path, errors);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
            let detail = "must be a standard resource for containers";
            errors.push(FieldError::invalid(path, name, detail));
        }
    } else if !is_native(name) && !is_extended(name) {
        let detail = "doesn't follow extended resource name standard";
        errors.push(FieldError::invalid(path, name, detail));
    }
}

/// The name of a resource that a pod as a whole can have.
fn validate_pod_name(name: &str, path: &FieldPath, errors: &mut Errors) {
    if validate_name(name, path, errors) && !matches!(name, "cpu" | "memory") && !is_huge_page(name) {
        errors.push(FieldError::not_supported(
            path,
            name,
            &["cpu", "hugepages-", "memory"],
        ));
    }
}

/// A quantity of a resource: a quantity at all, not negative, and whole where things are counted.
pub(crate) fn validate_quantity(name: &str, value: &At<'_>, errors: &mut Errors) -> Option<Quantity> {
    let amount = match value.value() {
        Value::String(text) => match Quantity::parse(text.trim()) {
            Ok(amount) => amount,
            Err(error) => {
                errors.push(value.invalid(&error.to_string()));
                return None;
            }
        },
        other => quantity(other)?,
    };
    if amount.sign() < 0 {
        errors.push(value.invalid(NEGATIVE));
    }
    if (INTEGER.contains(&name) || is_extended(name)) && amount.milli_value() % 1000 != 0 {
        errors.push(value.invalid("must be an integer"));
    }
    Some(amount)
}

/// What is wrong with the resources of a container.
pub(crate) fn validate_requirements(resources: &At<'_>, claims: &[&str], errors: &mut Errors) {
    requirements(resources, validate_container_name, errors);
    validate_claims(resources, claims, errors);
}

/// What is wrong with the resources of a whole pod.
pub(crate) fn validate_pod_requirements(resources: &At<'_>, errors: &mut Errors) {
    if resources.has("claims") {
        let claims = resources.child("claims");
        errors.push(claims.forbidden("claims may not be set for Resources at pod-level"));
    }
    requirements(resources, validate_pod_name, errors);
}

fn requirements(resources: &At<'_>, validate_name: fn(&str, &FieldPath, &mut Errors), errors: &mut Errors) {
    let limits = resources.child("limits");
    let validate = |name: &str, value: &At<'_>, errors: &mut Errors| {
        validate_name(name, &value.path, errors);
        let amount = validate_quantity(name, value, errors)?;
        if is_huge_page(name) && !is_multiple_of_page(name, &amount) {
            let detail = format!("{amount} is not positive integer multiple of {name}");
            errors.push(value.invalid(&detail));
        }
        Some(amount)
    };
    for (name, value) in resources.each_entry("limits") {
        validate(name, &value, errors);
    }
    for (name, value) in resources.each_entry("requests") {
        let Some(amount) = validate(name, &value, errors) else {
            continue;
        };
        let path = resources.path.child("requests");
        match limits.field(name).and_then(quantity) {
            Some(limit) if amount != limit && !may_overcommit(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&path, amount.to_string(), &detail));
            }
            Some(limit) if amount > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&path, amount.to_string(), &detail));
            }
            None if !may_overcommit(name) => {
                errors.push(limits.required("Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
    }
    let any = |matches: fn(&str) -> bool| {
        ["limits", "requests"]
            .iter()
            .any(|list| resources.entries(list).any(|(name, _)| matches(name)))
    };
    if any(is_huge_page) && !any(|name| matches!(name, "cpu" | "memory")) {
        errors.push(resources.forbidden("HugePages require cpu or memory"));
    }
}

fn is_multiple_of_page(name: &str, amount: &Quantity) -> bool {
    let page = name
        .strip_prefix("hugepages-")
        .and_then(|size| Quantity::parse(size).ok());
    page.is_some_and(|page| {
        let page = page.value();
        page > 0 && amount.value() % page == 0
    })
}

/// Claims that a container uses are claims that its pod has, each once.
fn validate_claims(resources: &At<'_>, known: &[&str], errors: &mut Errors) {
    let mut used: Vec<String> = Vec::new();
    for claim in resources.each("claims") {
        let name = claim.text("name");
        if name.is_empty() {
            errors.push(claim.required(""));
            continue;
        }
        let request = claim.text("request");
        claim.optional_form("request", names::is_dns1123_label, errors);
        let key = if request.is_empty() {
            name.to_owned()
        } else {
            format!("{name}/{request}")
        };
        let overlaps = |other: &String| {
            *other == key || other == name || request.is_empty() && other.starts_with(&format!("{name}/"))
        };
        if used.iter().any(overlaps) {
            errors.push(FieldError::duplicate(&claim.path, key.as_str()));
        }
        used.push(key);
        if !known.contains(&name) {
            let mut error = FieldError::not_found(&claim.path, name);
            error
                .body
                .push_str(": must be one of the names in pod.spec.resourceClaims");
            if known.is_empty() {
                error.body.push_str(" which is empty");
            } else {
                error.body.push_str(": ");
                error.body.push_str(&known.join(", "));
            }
            errors.push(error);
        }
    }
}
