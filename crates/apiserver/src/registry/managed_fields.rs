//! `metadata.managedFields`: who wrote what. Upstream: `k8s.io/apimachinery/pkg/util/managedfields`.

use super::call::Call;
use super::options::WriteOptions;
use coracle_api::schema;
use coracle_meta::patch::apply::{self, Writer};
use jiff::Timestamp;
use serde_json::Value;

/// What a write of the whole object cannot change.
const NOT_WHOLE: &[&[&str]] = &[&["status"]];
/// What a write of the status cannot change.
const NOT_STATUS: &[&[&str]] = &[&["spec"], &["metadata", "labels"]];

/// Records in the written object (in its storage version) what an ordinary write changes of the stored one.
pub(crate) fn track(
    call: &Call,
    old: Option<&Value>,
    object: &mut Value,
    options: &WriteOptions,
    now: Timestamp,
) {
    let gvk = call.resource.storage_gvk();
    if let Some(ty) = schema::lookup(&gvk) {
        let api_version = gvk.api_version();
        apply::track(ty, old, object, &writer(call, options, &api_version, now));
    }
}

/// Who makes this request.
pub(crate) fn writer<'a>(
    call: &'a Call,
    options: &'a WriteOptions,
    api_version: &'a str,
    now: Timestamp,
) -> Writer<'a> {
    let subresource = &call.attributes.subresource;
    Writer {
        manager: &options.field_manager,
        subresource,
        api_version,
        ignored: match subresource.as_str() {
            "" if call.strategy.facts().status => NOT_WHOLE,
            "status" => NOT_STATUS,
            _ => &[],
        },
        now,
    }
}
