//! Objects as tables: what `kubectl get` asks for.
//! Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/response.go`, `metav1.Table`.

use crate::request::query_value;
use coracle_api::table::TableSpec;
use coracle_meta::Status;
use http::Uri;
use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;

/// How much of its object a row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads the query parameter `includeObject`.
    pub fn parse(uri: &Uri) -> Result<Self, Status> {
        match query_value(uri, "includeObject").as_deref() {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be \
                 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// Writes `"columnDefinitions":[…]`.
pub fn push_columns(spec: &TableSpec, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"columnDefinitions\":[");
    for (n, column) in spec.columns.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        let definition = serde_json::json!({
            "name": column.name,
            "type": column.data_type,
            "format": column.format,
            "description": "",
            "priority": column.priority,
        });
        push(out, &definition);
    }
    out.push(b']');
}

/// Writes one row. `whole` is the object in the version of the request.
pub fn push_row(
    spec: &TableSpec,
    stored: &Value,
    whole: &[u8],
    include: Include,
    now: Timestamp,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"cells\":");
    push(out, &Value::Array((spec.cells)(stored, now)));
    match include {
        Include::None => {}
        Include::Metadata => {
            out.extend_from_slice(b",\"object\":");
            push_partial(whole, out);
        }
        Include::Object => {
            out.extend_from_slice(b",\"object\":");
            out.extend_from_slice(whole);
        }
    }
    out.push(b'}');
}

/// Writes the object's `PartialObjectMetadata`.
pub fn push_partial(object: &[u8], out: &mut Vec<u8>) {
    #[derive(serde::Deserialize)]
    struct Partial<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let partial: Partial = serde_json::from_slice(object).expect("every object has metadata");
    out.extend_from_slice(
        b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":",
    );
    out.extend_from_slice(partial.metadata.get().as_bytes());
    out.push(b'}');
}

fn push(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).expect("writing to memory");
}
