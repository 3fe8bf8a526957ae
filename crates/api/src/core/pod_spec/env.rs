//! Validation of environment variables and of the downward API.
//! Upstream: `ValidateEnv`, `validateObjectFieldSelector` in `pkg/apis/core/validation`.

use super::paths;
use crate::access::Read;
use crate::at::{At, label, qualified_name, subdomain};
use crate::core::resource_list;
use crate::strategy::Errors;
use coracle_meta::{FieldError, names};

/// Fields of the pod that a variable can have.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of the pod that a file can have.
pub(super) const VOLUME_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Fields of the pod there are.
const POD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.host",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const BYTE_DIVISORS: &[&str] = &[
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

pub(super) fn validate(container: &At<'_>, errors: &mut Errors) {
    for variable in container.each("env") {
        variable.require_form("name", names::is_env_var_name, errors);
        validate_value_from(&variable, errors);
    }
    let path = container.path.child("envFrom");
    for source in container.each("envFrom") {
        source.optional_form("prefix", names::is_env_var_name, errors);
        let mut count = 0;
        for key in ["configMapRef", "secretRef"] {
            if let Some(reference) = source.present(key) {
                count += 1;
                let reasons = |name: &str| names::is_dns1123_subdomain(&names::mask_trailing_dash(name));
                reference.require_form("name", reasons, errors);
            }
        }
        if count == 0 {
            let detail = "must specify one of: `configMapRef` or `secretRef`";
            errors.push(FieldError::invalid(&path, "", detail));
        } else if count > 1 {
            let detail = "may not have more than one field specified at a time";
            errors.push(FieldError::invalid(&path, "", detail));
        }
    }
}

fn validate_value_from(variable: &At<'_>, errors: &mut Errors) {
    let Some(from) = variable.present("valueFrom") else {
        return;
    };
    let mut count = 0;
    if let Some(field) = from.present("fieldRef") {
        count += 1;
        validate_field(&field, ENV_FIELDS, errors);
    }
    if let Some(resource) = from.present("resourceFieldRef") {
        count += 1;
        validate_resource_field(&resource, false, errors);
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = from.present(key) {
            count += 1;
            reference.child("name").form(subdomain, errors);
            reference.require_form("key", names::is_config_map_key, errors);
        }
    }
    if let Some(file) = from.present("fileKeyRef") {
        count += 1;
        file.require_form("key", names::is_env_var_name, errors);
        file.require_form("volumeName", label, errors);
        if file.require("path", errors) {
            paths::no_backsteps(&file.child("path"), errors);
        }
    }
    let mut invalid = |detail: &str| errors.push(FieldError::invalid(&from.path, "", detail));
    if count == 0 {
        invalid("must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`");
    } else if !variable.text("value").is_empty() {
        invalid("may not be specified when `value` is not empty");
    } else if count > 1 {
        invalid("may not have more than one field specified at a time");
    }
}

/// A reference to a field of the pod that is one of those allowed, or to one label or annotation.
pub(super) fn validate_field(field: &At<'_>, allowed: &[&str], errors: &mut Errors) {
    if !field.require("apiVersion", errors) || !field.require("fieldPath", errors) {
        return;
    }
    let at = field.child("fieldPath");
    let conversion_error = |reason: String| at.invalid(&format!("error converting fieldPath: {reason}"));
    let version = field.text("apiVersion");
    if version != "v1" {
        errors.push(conversion_error(format!("unsupported pod version: {version}")));
        return;
    }
    let text = at.as_text();
    if let Some((path, key)) = subscript(text) {
        match path {
            "metadata.annotations" | "metadata.labels" => {
                let key = if path == "metadata.labels" {
                    key.to_owned()
                } else {
                    key.to_lowercase()
                };
                for reason in qualified_name(&key) {
                    errors.push(FieldError::invalid(&field.path, key.as_str(), &reason));
                }
            }
            _ => {
                let reason = format!("field label does not support subscript: {text}");
                errors.push(conversion_error(reason));
            }
        }
        return;
    }
    if !POD_FIELDS.contains(&text) {
        errors.push(conversion_error(format!("field label not supported: {text}")));
        return;
    }
    let text = if text == "spec.host" {
        "spec.nodeName"
    } else {
        text
    };
    if !allowed.contains(&text) {
        errors.push(FieldError::not_supported(&at.path, text, allowed));
    }
}

/// `metadata.labels['key']` as path and key.
fn subscript(text: &str) -> Option<(&str, &str)> {
    let (path, rest) = text.strip_suffix("']")?.split_once("['")?;
    (!path.is_empty()).then_some((path, rest))
}

/// A reference to a limit or a request of a container.
pub(super) fn validate_resource_field(resource: &At<'_>, is_volume: bool, errors: &mut Errors) {
    let name = resource.text("resource");
    let is_huge_page = ["limits.hugepages-", "requests.hugepages-"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    if is_volume && resource.text("containerName").is_empty() {
        errors.push(resource.child("containerName").required(""));
    } else if name.is_empty() {
        errors.push(resource.child("resource").required(""));
    } else if !RESOURCES.contains(&name) && !is_huge_page {
        errors.push(resource.child("resource").not_supported(RESOURCES));
    }
    let Some(divisor) = resource.field("divisor").and_then(resource_list::quantity) else {
        return;
    };
    if divisor.is_zero() {
        return;
    }
    let divisor = divisor.to_string();
    let (allowed, text): (&[&str], &str) = match name.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => {
            let text = "only divisor's values 1m and 1 are supported with the cpu resource";
            (&["1m", "1"], text)
        }
        "memory" => (BYTE_DIVISORS, "memory"),
        "ephemeral-storage" => (BYTE_DIVISORS, "local ephemeral storage"),
        _ if is_huge_page => (BYTE_DIVISORS, "hugepages"),
        _ => return,
    };
    if allowed.contains(&divisor.as_str()) {
        return;
    }
    let detail = if allowed.len() == 2 {
        text.to_owned()
    } else {
        format!(
            "only divisor's values {} are supported with the {text} resource",
            BYTE_DIVISORS.join(", ")
        )
    };
    let path = resource.path.child("divisor");
    errors.push(FieldError::invalid(&path, name, &detail));
}
