//! RoleBinding, and what ClusterRoleBindings share with it. Upstream: `pkg/apis/rbac`,
//! `pkg/registry/rbac/rolebinding`.

use crate::access::{Read, Write};
use crate::at::{At, subdomain};
use crate::object_meta::path_segment;
use crate::rbac::{FACTS, GROUP};
use crate::semantic::equal_field;
use crate::strategy::{Errors, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text, wide};
use coracle_meta::FieldPath;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;

/// The table of both kinds of bindings.
pub(crate) static TABLE: TableSpec = TableSpec {
    columns: &[
        NAME,
        text("Role"),
        AGE,
        wide("Users"),
        wide("Groups"),
        wide("ServiceAccounts"),
    ],
    cells,
};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TABLE,
    default,
    check: |binding, errors| validate(binding, true, errors),
    check_update: Some(|binding, old, errors| {
        validate(binding, true, errors);
        validate_role_stays(binding, old, errors);
    }),
    ..Kind::new(FACTS)
};

/// Roles, users and groups are in this API group.
pub(crate) fn default(binding: &mut Value) {
    binding.object("roleRef").fill_text("apiGroup", GROUP);
    for subject in binding.items("subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            subject.fill_text("apiGroup", GROUP);
        }
    }
}

/// What is wrong with a binding of either kind.
pub(crate) fn validate(binding: &Value, namespaced: bool, errors: &mut Errors) {
    let root = At::new(binding, FieldPath::default());
    let role = root.child("roleRef");
    role.child("apiGroup").one_of(&[GROUP], errors);
    let kinds: &[&str] = if namespaced {
        &["ClusterRole", "Role"]
    } else {
        &["ClusterRole"]
    };
    role.child("kind").one_of(kinds, errors);
    role.require_form("name", |name| path_segment(name, false), errors);
    for subject in root.each("subjects") {
        validate_subject(&subject, namespaced, errors);
    }
}

fn validate_subject(subject: &At<'_>, namespaced: bool, errors: &mut Errors) {
    subject.require("name", errors);
    match subject.text("kind") {
        "ServiceAccount" => {
            subject.optional_form("name", subdomain, errors);
            if !subject.text("apiGroup").is_empty() {
                errors.push(subject.child("apiGroup").not_supported(&[""]));
            }
            if !namespaced {
                subject.require("namespace", errors);
            }
        }
        "User" | "Group" => subject.child("apiGroup").one_of(&[GROUP], errors),
        _ => {
            let kinds = ["Group", "ServiceAccount", "User"];
            errors.push(subject.child("kind").not_supported(&kinds));
        }
    }
}

/// A binding is for one role for ever.
pub(crate) fn validate_role_stays(binding: &Value, old: &Value, errors: &mut Errors) {
    if !equal_field(binding, old, "roleRef") {
        errors.push(At::top(binding, "roleRef").invalid("cannot change roleRef"));
    }
}

fn cells(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = binding.sub("roleRef");
    let subjects = |kind: &str| {
        let names: Vec<String> = binding
            .list("subjects")
            .iter()
            .filter(|subject| subject.text("kind") == kind)
            .map(|subject| match (kind, subject.text("namespace")) {
                ("ServiceAccount", namespace) if !namespace.is_empty() => {
                    format!("{namespace}/{}", subject.text("name"))
                }
                _ => subject.text("name").to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![
        binding.name().into(),
        format!("{}/{}", role.text("kind"), role.text("name")).into(),
        age(binding, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
