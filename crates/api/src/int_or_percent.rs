//! Numbers that may be shares of something. Upstream: `ValidatePositiveIntOrPercent` and its kin in
//! `pkg/apis/apps/validation`, `k8s.io/apimachinery/pkg/util/intstr`.

use crate::at::{At, NEGATIVE};
use crate::strategy::Errors;
use coracle_meta::names;
use serde_json::Value;

/// Not negative, or a percentage.
pub(crate) fn validate(field: &At<'_>, errors: &mut Errors) {
    match field.value() {
        Value::String(_) => field.form(names::is_percent, errors),
        Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => {
            errors.push(field.invalid(NEGATIVE));
        }
        _ => {}
    }
}

/// Not more than all.
pub(crate) fn at_most_all(field: &At<'_>, errors: &mut Errors) {
    if field.value().is_string() && number(field.value()) > 100 {
        errors.push(field.invalid("must not be greater than 100%"));
    }
}

/// The number or the percentage; 0 if it is neither.
pub(crate) fn number(value: &Value) -> i64 {
    match value {
        Value::String(text) if names::is_percent(text).is_empty() => {
            text.trim_end_matches('%').parse().unwrap_or(i64::MAX)
        }
        other => other.as_i64().unwrap_or_default(),
    }
}

/// The text that tables show: `5` or `25%`.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
