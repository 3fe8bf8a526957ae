//! Validation of probes and lifecycle hooks. Upstream: `validateProbe`, `validateLifecycle`.

use super::validation::Context;
use crate::access::Read;
use crate::at::At;
use crate::strategy::Errors;
use coracle_meta::{FieldError, names};
use serde_json::Value;

/// Probes and hooks of a container that may have them.
pub(super) fn validate_all(container: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    if let Some(lifecycle) = container.present("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.present(hook) {
                validate_handler(&hook, context, errors);
            }
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.present(key) else {
            continue;
        };
        validate_probe(&probe, context, errors);
        if key == "readinessProbe" {
            if let Some(period) = probe.present("terminationGracePeriodSeconds") {
                errors.push(period.invalid("must not be set for readinessProbes"));
            }
        } else if probe.int("successThreshold").is_some_and(|count| count != 1) {
            errors.push(probe.child("successThreshold").invalid("must be 1"));
        }
    }
}

fn validate_probe(probe: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    validate_handler(probe, context, errors);
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        probe.not_negative(key, errors);
    }
    let period = probe.child("terminationGracePeriodSeconds");
    if period.as_i64().is_some_and(|seconds| seconds <= 0) {
        errors.push(period.invalid("must be greater than 0"));
    }
}

fn validate_handler(holder: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    let mut count = 0;
    for key in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(handler) = holder.present(key) else {
            continue;
        };
        count += 1;
        if count > 1 {
            errors.push(handler.forbidden("may not specify more than 1 handler type"));
            continue;
        }
        match key {
            "exec" => {
                if handler.list("command").is_empty() {
                    errors.push(handler.child("command").required(""));
                }
            }
            "httpGet" => validate_http_get(&handler, errors),
            "sleep" => {
                let seconds = handler.int("seconds").unwrap_or_default();
                if let Some(grace) = context.grace_period
                    && !(0..=grace).contains(&seconds)
                {
                    let detail =
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    errors.push(FieldError::invalid(&handler.path, seconds, &detail));
                }
            }
            _ => validate_port(&handler.child("port"), errors),
        }
    }
    if count == 0 {
        errors.push(holder.required("must specify a handler type"));
    }
}

fn validate_http_get(http: &At<'_>, errors: &mut Errors) {
    http.require("path", errors);
    validate_port(&http.child("port"), errors);
    http.child("scheme").one_of(&["HTTP", "HTTPS"], errors);
    for header in http.each("httpHeaders") {
        let name = header.text("name");
        for reason in names::is_http_header_name(name) {
            let path = http.path.child("httpHeaders");
            errors.push(FieldError::invalid(&path, name, &reason));
        }
    }
}

/// A number or the name of a port.
pub(crate) fn validate_port(port: &At<'_>, errors: &mut Errors) {
    if let Value::String(_) = port.value() {
        port.form(names::is_port_name, errors);
        return;
    }
    let number = port.as_i64().unwrap_or_default();
    for reason in names::is_port_number(number) {
        errors.push(FieldError::invalid(&port.path, number, &reason));
    }
}
