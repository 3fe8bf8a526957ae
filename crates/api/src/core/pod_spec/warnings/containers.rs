//! Advice about containers: annotations that became fields, fractional bytes, hidden environment variables.

use super::{OLD_SECCOMP, annotation};
use crate::access::Read;
use crate::at::At;
use crate::semantic;
use crate::warnings::fractional_bytes;
use serde_json::{Value, json};
use std::collections::HashSet;

const SECCOMP_PREFIX: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
const OLD_APP_ARMOR: &str = r#"deprecated since v1.30; use the "appArmorProfile" field instead"#;

pub(super) fn warn(container: &At<'_>, metadata: &At<'_>, spec: &At<'_>, warnings: &mut Vec<String>) {
    let context = container.sub("securityContext");
    let name = container.text("name");
    if !context.has("seccompProfile") {
        annotation(
            metadata,
            &format!("{SECCOMP_PREFIX}{name}"),
            OLD_SECCOMP,
            warnings,
        );
    }
    if !context.has("appArmorProfile") {
        app_armor(&format!("{APP_ARMOR_PREFIX}{name}"), metadata, spec, warnings);
    }
    let resources = container.child("resources");
    for resource in ["memory", "ephemeral-storage"] {
        for list in ["limits", "requests"] {
            fractional_bytes(&resources.child(list), resource, warnings);
        }
    }
    hidden_variables(container, warnings);
}

/// The annotation may repeat what the field of the pod says.
fn app_armor(key: &str, metadata: &At<'_>, spec: &At<'_>, warnings: &mut Vec<String>) {
    let profile = match metadata.sub("annotations").text(key) {
        "unconfined" => json!({"type": "Unconfined"}),
        "runtime/default" => json!({"type": "RuntimeDefault"}),
        other => match other.strip_prefix("localhost/") {
            Some(name) if !name.is_empty() => json!({"type": "Localhost", "localhostProfile": name}),
            _ => Value::Null,
        },
    };
    let of_pod = spec.sub("securityContext").sub("appArmorProfile");
    if of_pod.is_null() || !semantic::equal(of_pod, &profile) {
        annotation(metadata, key, OLD_APP_ARMOR, warnings);
    }
}

/// A variable may be defined anew in terms of itself; otherwise the first definition is lost, the more so as apply
/// merges variables by name.
fn hidden_variables(container: &At<'_>, warnings: &mut Vec<String>) {
    let mut names = HashSet::new();
    for variable in container.each("env") {
        let name = variable.value().text("name");
        if names.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        let value = variable.text("value");
        if variable.has("valueFrom") || value == reference || !value.contains(&reference) {
            warnings.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                variable.path
            ));
        }
    }
}
