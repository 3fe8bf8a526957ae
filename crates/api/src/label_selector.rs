//! The form of a `LabelSelector`. Upstream: `k8s.io/apimachinery/pkg/apis/meta/v1/validation`.

use crate::access::Read;
use crate::at::{At, qualified_name};
use crate::object_meta;
use crate::strategy::Errors;
use coracle_meta::{FieldError, names};

/// What is wrong with a selector; an absent one is right.
pub(crate) fn validate(selector: &At<'_>, errors: &mut Errors) {
    object_meta::labels(&selector.child("matchLabels"), errors);
    for requirement in selector.each("matchExpressions") {
        let values = requirement.child("values");
        let count = requirement.list("values").len();
        match requirement.text("operator") {
            "In" | "NotIn" => {
                if count == 0 {
                    let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                    errors.push(values.required(detail));
                }
            }
            "Exists" | "DoesNotExist" => {
                if count > 0 {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.push(values.forbidden(detail));
                }
            }
            other => {
                let path = requirement.path.child("operator");
                errors.push(FieldError::invalid(&path, other, "not a valid selector operator"));
            }
        }
        requirement.child("key").form(qualified_name, errors);
        for value in requirement.each("values") {
            value.form(names::is_label_value, errors);
        }
    }
}

/// Whether a selector selects nothing in particular: it is absent or has no requirement.
pub(crate) fn is_empty(selector: &At<'_>) -> bool {
    selector.size("matchLabels") == 0 && selector.list("matchExpressions").is_empty()
}
