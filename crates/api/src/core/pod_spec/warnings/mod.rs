//! Advice about pods and templates of pods. Upstream: `pkg/api/pod/warnings.go`.

mod containers;
mod ports;
mod volumes;

#[cfg(test)]
mod tests;

use crate::access::Read;
use crate::at::At;
use crate::warnings::{deprecated_node_label, fractional_bytes, ip, node_label, node_selector_term};
use coracle_meta::names;
use std::collections::HashSet;

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";
const OLD_SYSCTLS: &str = r#"non-functional in v1.11+; use the "sysctls" field instead"#;
const OLD_SECCOMP: &str = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
const DEPRECATED_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", OLD_SYSCTLS),
    ("security.alpha.kubernetes.io/unsafe-sysctls", OLD_SYSCTLS),
];
const SECCOMP_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// About a pod, or a template of pods.
pub(crate) fn warn(pod: &At<'_>, warnings: &mut Vec<String>) {
    let (metadata, spec) = (pod.child("metadata"), pod.child("spec"));
    node_labels(&spec, warnings);
    annotations(&metadata, warnings);
    volumes::warn(&spec, warnings);
    duplicates(&spec, "hostAliases", "ip", warnings);
    duplicates(&spec, "imagePullSecrets", "name", warnings);
    for secret in spec.each("imagePullSecrets") {
        if secret.text("name").is_empty() {
            let path = secret.path.child("name");
            warnings.push(format!("{path}: invalid empty name \"\""));
        }
    }
    for resource in ["memory", "ephemeral-storage"] {
        fractional_bytes(&spec.child("overhead"), resource, warnings);
    }
    if !spec.sub("securityContext").has("seccompProfile") {
        annotation(&metadata, SECCOMP_ANNOTATION, OLD_SECCOMP, warnings);
    }
    for container in all_containers(&spec) {
        containers::warn(&container, &metadata, &spec, warnings);
    }
    ports::warn(&spec, warnings);
    if spec
        .int("terminationGracePeriodSeconds")
        .is_some_and(|period| period < 0)
    {
        warnings.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            spec.path.child("terminationGracePeriodSeconds")
        ));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        affinity_terms(&spec.child("affinity").child(kind), warnings);
    }
    for server in spec.child("dnsConfig").each("nameservers") {
        ip(&server, warnings);
    }
    for alias in spec.each("hostAliases") {
        ip(&alias.child("ip"), warnings);
    }
}

/// Containers of all sorts, in upstream's order.
fn all_containers<'a>(spec: &At<'a>) -> impl Iterator<Item = At<'a>> + use<'a> {
    let spec = spec.clone();
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |list| spec.each(list))
}

fn node_labels(spec: &At<'_>, warnings: &mut Vec<String>) {
    for (key, entry) in spec.each_entry("nodeSelector") {
        if let Some(message) = deprecated_node_label(key) {
            warnings.push(format!("{}: {message}", entry.path));
        }
    }
    let affinity = spec.child("affinity").child("nodeAffinity");
    for term in affinity.child(REQUIRED).each("nodeSelectorTerms") {
        node_selector_term(&term, warnings);
    }
    for weighted in affinity.each(PREFERRED) {
        let term = weighted.child("preference");
        node_selector_term(&term, warnings);
        label_values(&term, warnings);
    }
    for constraint in spec.each("topologySpreadConstraints") {
        node_label(&constraint.child("topologyKey"), warnings);
        label_selector(&constraint, warnings);
    }
}

/// Preferences select by values that labels can have; only required terms are validated.
fn label_values(term: &At<'_>, warnings: &mut Vec<String>) {
    for value in term
        .each("matchExpressions")
        .flat_map(|expression| expression.each("values"))
    {
        for reason in names::is_label_value(value.as_text()) {
            warnings.push(format!(
                "{}: {} is invalid, {reason}",
                value.path,
                value.as_text()
            ));
        }
    }
}

fn label_selector(holder: &At<'_>, warnings: &mut Vec<String>) {
    if !holder.has("labelSelector") {
        let path = holder.path.child("labelSelector");
        warnings.push(format!("{path}: {NULL_SELECTOR}"));
    }
}

fn affinity_terms(affinity: &At<'_>, warnings: &mut Vec<String>) {
    for term in affinity.each(REQUIRED) {
        label_selector(&term, warnings);
    }
    for weighted in affinity.each(PREFERRED) {
        label_selector(&weighted.child("podAffinityTerm"), warnings);
    }
}

fn annotations(metadata: &At<'_>, warnings: &mut Vec<String>) {
    for (key, message) in DEPRECATED_ANNOTATIONS {
        annotation(metadata, key, message, warnings);
    }
}

/// The annotation should not be there.
fn annotation(metadata: &At<'_>, key: &str, message: &str, warnings: &mut Vec<String>) {
    let annotations = metadata.child("annotations");
    if annotations.has(key) {
        warnings.push(format!("{}: {message}", annotations.path.key(key)));
    }
}

/// No two entries of a list say the same in a field.
fn duplicates(spec: &At<'_>, list: &str, key: &str, warnings: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for item in spec.each(list) {
        let text = item.value().text(key);
        if !seen.insert(text) {
            let path = item.path.child(key);
            warnings.push(format!("{path}: duplicate {key} {text:?}"));
        }
    }
}
