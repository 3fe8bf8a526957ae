//! How the API server reaches a webhook. Upstream: `k8s.io/apiserver/pkg/util/webhook/validation.go`.

use crate::at::{At, subdomain};
use crate::strategy::Errors;
use coracle_meta::{FieldError, names};
use std::collections::BTreeSet;

const URL_FORM: &str = "; desired format: https://host[/path]";

/// A URL or a Service.
pub(crate) fn validate_client_config(config: &At<'_>, errors: &mut Errors) {
    match (config.present("url"), config.present("service")) {
        (Some(url), None) => validate_url(&url, errors),
        (None, Some(service)) => validate_service(&service, errors),
        _ => errors.push(config.required("exactly one of url or service is required")),
    }
}

fn validate_url(url: &At<'_>, errors: &mut Errors) {
    let mut invalid = |value: &str, detail: &str| errors.push(FieldError::invalid(&url.path, value, detail));
    let (rest, fragment) = url.as_text().split_once('#').unwrap_or((url.as_text(), ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let authority = if scheme.is_empty() {
        ""
    } else {
        rest.split('/').next().unwrap_or_default()
    };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        invalid(
            scheme,
            &format!("'https' is the only allowed URL scheme{URL_FORM}"),
        );
    }
    if host.is_empty() {
        invalid(host, &format!("host must be specified{URL_FORM}"));
    }
    if !user.is_empty() {
        invalid(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        invalid(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        invalid(query, "query parameters are not permitted in the URL");
    }
}

fn validate_service(service: &At<'_>, errors: &mut Errors) {
    service.require("name", errors);
    service.require("namespace", errors);
    let port = service.child("port");
    let reasons = names::is_port_number(port.as_i64().unwrap_or_default());
    if !reasons.is_empty() {
        errors.push(port.invalid(&format!("port is not valid: {}", reasons.join(", "))));
    }
    let path = service.child("path");
    let text = path.as_text();
    if matches!(text, "" | "/") {
        return;
    }
    if !text.starts_with('/') {
        errors.push(path.invalid("must start with a '/'"));
    }
    let inner = text.strip_prefix('/').unwrap_or(text);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    for (index, step) in inner.split('/').enumerate() {
        if step.is_empty() {
            errors.push(path.invalid(&format!("segment[{index}] may not be empty")));
            continue;
        }
        for reason in subdomain(step) {
            errors.push(path.invalid(&format!("segment[{index}]: {reason}")));
        }
    }
}

/// The versions of reviews that a webhook understands: at least one that the API server speaks. `missing` is said
/// when there are none.
pub(crate) fn validate_review_versions(versions: &At<'_>, missing: &str, errors: &mut Errors) {
    let list: Vec<&str> = match versions.as_array() {
        Some(list) if !list.is_empty() => list.iter().filter_map(|version| version.as_str()).collect(),
        _ => {
            errors.push(versions.required(missing));
            return;
        }
    };
    let mut seen = BTreeSet::new();
    for (index, version) in list.iter().enumerate() {
        let path = versions.path.index(index);
        if !seen.insert(version) {
            errors.push(FieldError::invalid(&path, *version, "duplicate version"));
            continue;
        }
        for reason in names::is_dns1035_label(version) {
            errors.push(FieldError::invalid(&path, *version, &reason));
        }
    }
    if !list.iter().any(|version| matches!(*version, "v1" | "v1beta1")) {
        errors.push(versions.invalid("must include at least one of v1, v1beta1"));
    }
}
