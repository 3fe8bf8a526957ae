//! `metadata.managedFields`: who wrote what. Upstream: `k8s.io/apimachinery/pkg/util/managedfields`.

use super::call::Call;
use super::metadata::metadata_mut;
use super::options::WriteOptions;
use jiff::Timestamp;
use serde_json::Value;

/// Brings the managed fields of a written object up to date.
pub(crate) fn on_write(
    call: &Call,
    old: Option<&Value>,
    object: &mut Value,
    options: &WriteOptions,
    now: Timestamp,
) {
    let _ = (call, options, now);
    let kept = old.and_then(|old| old["metadata"].get("managedFields")).cloned();
    let metadata = metadata_mut(object);
    match kept {
        Some(managed) => metadata.insert("managedFields".to_owned(), managed),
        None => metadata.remove("managedFields"),
    };
}
