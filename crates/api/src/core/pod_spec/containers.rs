//! Validation of containers, init containers and ephemeral containers.
//! Upstream: `validateContainers` and its kin in `pkg/apis/core/validation`.

use super::validation::Context;
use super::{env, probes, security_context, volume_mounts};
use crate::access::Read;
use crate::at::{At, label};
use crate::core::resource_list;
use crate::strategy::Errors;
use coracle_meta::{FieldError, FieldPath, names};
use std::collections::BTreeSet;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Fields of containers that debugging containers may not have.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];

pub(super) fn validate(spec: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    let containers = spec.child("containers");
    if spec.list("containers").is_empty() {
        errors.push(containers.required(""));
        return;
    }
    let mut seen = BTreeSet::new();
    for container in spec.each("containers") {
        validate_common(&container, context, errors);
        if !seen.insert(container.text("name").to_owned()) {
            errors.push(container.child("name").duplicate());
        }
        probes::validate_all(&container, context, errors);
        validate_restart_policy(&container, errors);
    }
    let mut ports = BTreeSet::new();
    for container in spec.each("containers") {
        validate_host_ports(&container, &mut ports, errors);
    }
}

pub(super) fn validate_init(spec: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    let mut seen = names_of(spec, &["containers"]);
    for container in spec.each("initContainers") {
        validate_common(&container, context, errors);
        validate_restart_policy(&container, errors);
        let name = container.text("name");
        if !seen.insert(name.to_owned()) {
            errors.push(container.child("name").duplicate());
        }
        validate_host_ports(&container, &mut BTreeSet::new(), errors);
        let is_sidecar = container.text("restartPolicy") == "Always";
        if is_sidecar {
            probes::validate_all(&container, context, errors);
            continue;
        }
        for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if let Some(field) = container.present(key) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(field.forbidden(detail));
            }
        }
        for policy in container.each("resizePolicy") {
            if policy.text("restartPolicy") == "RestartContainer" {
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.push(policy.child("restartPolicy").invalid(detail));
            }
        }
    }
}

pub(super) fn validate_ephemeral(spec: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    let targets = names_of(spec, &["containers", "initContainers"]);
    let mut seen = targets.clone();
    for container in spec.each("ephemeralContainers") {
        validate_common(&container, context, errors);
        validate_image_for_pod(&container, errors);
        if !seen.insert(container.text("name").to_owned()) {
            errors.push(container.child("name").duplicate());
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !targets.contains(target) {
            let path = container.path.child("targetContainerName");
            errors.push(FieldError::not_found(&path, target));
        }
        for key in NOT_EPHEMERAL {
            let is_set = match container.sub(key) {
                serde_json::Value::Null => false,
                serde_json::Value::Object(fields) => !fields.is_empty(),
                serde_json::Value::Array(items) => !items.is_empty(),
                _ => true,
            };
            if is_set {
                let field = container.child(key);
                errors.push(field.forbidden("cannot be set for an Ephemeral Container"));
            }
        }
        for mount in container.each("volumeMounts") {
            for key in ["subPath", "subPathExpr"] {
                if !mount.text(key).is_empty() {
                    let field = mount.child(key);
                    errors.push(field.forbidden("cannot be set for an Ephemeral Container"));
                }
            }
        }
    }
}

/// An image may have blanks around it in a template, where something may replace it, but not in a pod.
pub(crate) fn validate_image_for_pod(container: &At<'_>, errors: &mut Errors) {
    let image = container.text("image");
    if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(container.child("image").invalid(detail));
    }
}

fn names_of(spec: &At<'_>, lists: &[&str]) -> BTreeSet<String> {
    lists
        .iter()
        .flat_map(|list| spec.list(list))
        .map(|container| container.text("name").to_owned())
        .collect()
}

fn validate_common(container: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    container.require_form("name", label, errors);
    container.require("image", errors);
    container.require_one_of(
        "terminationMessagePolicy",
        &["FallbackToLogsOnError", "File"],
        errors,
    );
    validate_ports(container, errors);
    env::validate(container, errors);
    volume_mounts::validate(container, &context.volumes, errors);
    container.require_one_of("imagePullPolicy", PULL_POLICIES, errors);
    resource_list::validate_requirements(&container.child("resources"), &context.claims, errors);
    validate_resize_policy(container, context, errors);
    if let Some(security) = container.present("securityContext") {
        security_context::validate(&security, context.host_users, errors);
    }
}

fn validate_ports(container: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in container.each("ports") {
        let name = port.text("name");
        if !name.is_empty() {
            let before = errors.len();
            port.child("name").form(names::is_port_name, errors);
            if errors.len() == before && !seen.insert(name.to_owned()) {
                errors.push(port.child("name").duplicate());
            }
        }
        if port.int("containerPort").unwrap_or_default() == 0 {
            errors.push(port.child("containerPort").required(""));
        } else {
            port.range("containerPort", 1, 65535, errors);
        }
        if port.int("hostPort").unwrap_or_default() != 0 {
            port.range("hostPort", 1, 65535, errors);
        }
        port.require_one_of("protocol", PROTOCOLS, errors);
    }
}

fn validate_host_ports(container: &At<'_>, seen: &mut BTreeSet<String>, errors: &mut Errors) {
    for port in container.each("ports") {
        let number = port.int("hostPort").unwrap_or_default();
        if number == 0 {
            continue;
        }
        let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
        if !seen.insert(key.clone()) {
            let path = port.path.child("hostPort");
            errors.push(FieldError::duplicate(&path, key));
        }
    }
}

fn validate_resize_policy(container: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    let path = container.path.child("resizePolicy");
    let mut seen = BTreeSet::new();
    for policy in container.each("resizePolicy") {
        let resource = policy.text("resourceName");
        if !seen.insert(resource.to_owned()) {
            errors.push(FieldError::duplicate(&policy.path, resource));
        }
        let mut one_of = |value: &str, allowed: &[&str]| {
            if value.is_empty() {
                errors.push(FieldError::required(&path, ""));
            } else if !allowed.contains(&value) {
                errors.push(FieldError::not_supported(&path, value, allowed));
            }
        };
        let restart = policy.text("restartPolicy");
        one_of(resource, &["cpu", "memory"]);
        one_of(restart, &["NotRequired", "RestartContainer"]);
        if context.restart_policy == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(&path, restart, detail));
        }
    }
}

fn validate_restart_policy(container: &At<'_>, errors: &mut Errors) {
    let rules = container.list("restartPolicyRules");
    match container.present("restartPolicy") {
        Some(policy) => policy.one_of(&["Always", "Never", "OnFailure"], errors),
        None if rules.is_empty() => return,
        None => {
            let detail = "must specify restartPolicy when restart rules are used";
            errors.push(container.child("restartPolicy").required(detail));
        }
    }
    if rules.len() > 20 {
        let path: FieldPath = container.path.child("restartPolicyRules");
        errors.push(FieldError::too_many(&path, rules.len(), 20));
    }
    for rule in container.each("restartPolicyRules") {
        rule.child("action")
            .one_of(&["Restart", "RestartAllContainers"], errors);
        let Some(codes) = rule.present("exitCodes") else {
            errors.push(rule.child("exitCodes").required("must be specified"));
            continue;
        };
        codes.child("operator").one_of(&["In", "NotIn"], errors);
        let count = codes.list("values").len();
        if count > 255 {
            errors.push(FieldError::too_many(&codes.path.child("values"), count, 255));
        }
    }
}
