//! Validation of Ingresses. Upstream: `ValidateIngressSpec`.

use super::CLASS_ANNOTATION;
use crate::access::Read;
use crate::at::{At, label, subdomain};
use crate::core::service;
use crate::object_meta::path_segment;
use crate::strategy::Errors;
use coracle_meta::{FieldError, FieldPath, names};
use serde_json::Value;
use std::net::IpAddr;

const BAD_PATHS: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
const BAD_PATH_ENDS: &[&str] = &["/..", "/."];

pub(super) fn check(ingress: &Value, errors: &mut Errors) {
    check_update(ingress, &Value::Null, errors);
    let annotations = ingress.sub("metadata").sub("annotations");
    let (old_class, class) = (
        annotations.text(CLASS_ANNOTATION),
        ingress.sub("spec").field("ingressClassName"),
    );
    if annotations.has(CLASS_ANNOTATION) && class.is_some_and(|class| class != old_class) {
        let path = FieldPath::new("annotations").child(CLASS_ANNOTATION);
        let detail = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid(&path, old_class, detail));
    }
}

pub(super) fn check_update(ingress: &Value, _old: &Value, errors: &mut Errors) {
    let spec = At::top(ingress, "spec");
    if spec.list("rules").is_empty() && !spec.has("defaultBackend") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&spec.path, Value::Null, detail));
    }
    if let Some(backend) = spec.present("defaultBackend") {
        validate_backend(&backend, errors);
    }
    for rule in spec.each("rules") {
        validate_host(&rule.child("host"), errors);
        if let Some(http) = rule.present("http") {
            if http.list("paths").is_empty() {
                errors.push(http.child("paths").required(""));
            }
            for path in http.each("paths") {
                validate_path(&path, errors);
            }
        }
    }
    for tls in spec.each("tls") {
        for host in tls.each("hosts") {
            host.form(host_form, errors);
        }
        tls.optional_form("secretName", subdomain, errors);
    }
    if let Some(class) = spec.present("ingressClassName") {
        class.form(subdomain, errors);
    }
}

fn host_form(host: &str) -> Vec<String> {
    if host.contains('*') {
        names::is_wildcard_dns1123_subdomain(host)
    } else {
        subdomain(host)
    }
}

fn validate_host(host: &At<'_>, errors: &mut Errors) {
    let text = host.as_text();
    if text.is_empty() {
        return;
    }
    if text.parse::<IpAddr>().is_ok() {
        errors.push(host.invalid("must be a DNS name, not an IP address"));
    }
    host.form(host_form, errors);
}

fn validate_path(rule: &At<'_>, errors: &mut Errors) {
    let kind = rule.child("pathType");
    if kind.is_null() {
        errors.push(kind.required("pathType must be specified"));
        return;
    }
    let path = rule.child("path");
    let text = path.as_text();
    let mut invalid = |detail: &str| errors.push(FieldError::invalid(&path.path, text, detail));
    match kind.as_text() {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                invalid("must be an absolute path");
            }
            for bad in BAD_PATHS.iter().filter(|bad| text.contains(**bad)) {
                invalid(&format!("must not contain '{bad}'"));
            }
            for bad in BAD_PATH_ENDS.iter().filter(|bad| text.ends_with(**bad)) {
                invalid(&format!("cannot end with '{bad}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                invalid("must be an absolute path");
            }
        }
        _ => {
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(kind.not_supported(&kinds));
        }
    }
    validate_backend(&rule.child("backend"), errors);
}

fn validate_backend(backend: &At<'_>, errors: &mut Errors) {
    let (resource, service) = (backend.present("resource"), backend.present("service"));
    let invalid = |detail: &str| FieldError::invalid(&backend.path, "", detail);
    match (resource, service) {
        (Some(_), Some(_)) => errors.push(invalid("cannot set both resource and service backends")),
        (Some(resource), None) => validate_reference(&resource, errors),
        (None, Some(service)) => {
            service.require_form("name", label, errors);
            let port = service.child("port");
            let number = port.int("number").unwrap_or_default();
            match (port.text("name").is_empty(), number) {
                (false, 0) => port.child("name").form(names::is_port_name, errors),
                (false, _) => errors.push(invalid("cannot set both port name & port number")),
                (true, 0) => errors.push(backend.required("port name or number is required")),
                (true, _) => port.range("number", 1, 65535, errors),
            }
        }
        (None, None) => errors.push(invalid("resource or service backend is required")),
    }
}

/// A reference to an object of any kind in the same namespace.
pub(crate) fn validate_reference(reference: &At<'_>, errors: &mut Errors) {
    let segment = |name: &str| path_segment(name, false);
    if let Some(group) = reference.present("apiGroup") {
        group.form(subdomain, errors);
    }
    reference.require_form("kind", segment, errors);
    reference.require_form("name", segment, errors);
}

pub(super) fn check_status_update(ingress: &Value, _old: &Value, errors: &mut Errors) {
    for entry in At::top(ingress, "status").child("loadBalancer").each("ingress") {
        if !entry.text("ip").is_empty() {
            entry.child("ip").ip(errors);
        }
        service::validate_hostname(&entry, errors);
    }
}
