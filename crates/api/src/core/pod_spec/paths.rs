//! Paths of files in volumes. Upstream: `validateLocalDescendingPath` and its kin.

use crate::at::At;
use crate::strategy::Errors;

/// No element is `..`.
pub(super) fn no_backsteps(path: &At<'_>, errors: &mut Errors) {
    if path.as_text().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
}

/// Relative, and nowhere upwards.
pub(super) fn descending(path: &At<'_>, errors: &mut Errors) {
    if path.as_text().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    no_backsteps(path, errors);
}

/// Relative, nowhere upwards, and not one of the names that volumes are swapped with.
pub(super) fn not_reserved(path: &At<'_>, errors: &mut Errors) {
    descending(path, errors);
    let text = path.as_text();
    if text.starts_with("..") && !text.starts_with("../") && text != ".." {
        errors.push(path.invalid("must not start with '..'"));
    }
}
