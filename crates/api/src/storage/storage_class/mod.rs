//! StorageClass. Upstream: `pkg/apis/storage`, `pkg/registry/storage/storageclass`.

use crate::access::{Read, Write};
use crate::at::{At, qualified_name};
use crate::strategy::{Errors, Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use crate::warnings::deprecated_node_label;
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, FieldPath};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE_MAX: usize = 256 * 1024;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("Provisioner"),
            text("ReclaimPolicy"),
            text("VolumeBindingMode"),
            text("AllowVolumeExpansion"),
            AGE,
        ],
        cells,
    },
    default: |class| {
        class.fill("reclaimPolicy", "Delete");
        class.fill("volumeBindingMode", "Immediate");
    },
    check,
    check_update: Some(|class, old, errors| {
        let root = At::new(class, FieldPath::default());
        for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            root.immutable(key, old, errors);
        }
    }),
    warnings: |class, _| {
        let root = At::new(class, FieldPath::default());
        let topologies = root.each("allowedTopologies");
        topologies
            .flat_map(|topology| topology.each("matchLabelExpressions"))
            .filter_map(|expression| {
                let message = deprecated_node_label(expression.text("key"))?;
                Some(format!("{}: {message}", expression.path.child("key")))
            })
            .collect()
    },
    ..Kind::new(Facts::CLUSTER_DATA)
};

fn check(class: &Value, errors: &mut Errors) {
    let root = At::new(class, FieldPath::default());
    root.require_form("provisioner", |name| qualified_name(&name.to_lowercase()), errors);
    validate_parameters(&root, errors);
    if !root.text("reclaimPolicy").is_empty() {
        root.child("reclaimPolicy").one_of(&["Delete", "Retain"], errors);
    }
    let modes = ["Immediate", "WaitForFirstConsumer"];
    root.require_one_of("volumeBindingMode", &modes, errors);
    validate_topologies(&root, errors);
}

/// Terms that select nodes by the values of their labels; no two alike.
fn validate_topologies(root: &At<'_>, errors: &mut Errors) {
    let mut terms: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for term in root.each("allowedTopologies") {
        let mut keys = BTreeMap::new();
        for requirement in term.each("matchLabelExpressions") {
            let key = requirement.value().text("key");
            let values = validate_requirement(&requirement, errors);
            if keys.insert(key, values).is_some() {
                errors.push(requirement.child("key").duplicate());
            }
        }
        if terms.contains(&keys) {
            let path = term.path.child("matchLabelExpressions");
            errors.push(FieldError::duplicate(&path, ""));
        }
        terms.push(keys);
    }
}

fn validate_requirement<'a>(requirement: &At<'a>, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut values = BTreeSet::new();
    if requirement.list("values").is_empty() {
        errors.push(requirement.child("values").required(""));
    }
    for value in requirement.each("values") {
        if !values.insert(value.as_text()) {
            errors.push(value.duplicate());
        }
    }
    requirement.child("key").form(qualified_name, errors);
    values
}

/// Parameters for a driver: not too many, not too large, none without a name.
pub(crate) fn validate_parameters(root: &At<'_>, errors: &mut Errors) {
    let parameters = root.child("parameters");
    if root.size("parameters") > PARAMETERS_MAX {
        errors.push(FieldError::too_long(&parameters.path, PARAMETERS_MAX));
        return;
    }
    let mut size = 0;
    for (key, value) in root.entries("parameters") {
        if key.is_empty() {
            let detail = "field can not be empty.";
            errors.push(FieldError::invalid(&parameters.path, "", detail));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > PARAMETERS_SIZE_MAX {
        errors.push(FieldError::too_long(&parameters.path, PARAMETERS_SIZE_MAX));
    }
}

fn cells(class: &Value, now: Timestamp) -> Vec<Value> {
    let is_default = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ]
    .iter()
    .any(|key| class.annotation(key) == Some("true"));
    let name = class.name();
    let or = |key: &str, default: &str| match class.text(key) {
        "" => Value::from(default),
        text => text.into(),
    };
    vec![
        if is_default {
            format!("{name} (default)").into()
        } else {
            name.into()
        },
        class.text("provisioner").into(),
        or("reclaimPolicy", "Delete"),
        or("volumeBindingMode", "Immediate"),
        class.flag("allowVolumeExpansion").into(),
        age(class, now),
    ]
}
