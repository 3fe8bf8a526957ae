//! From request bodies to objects in their storage version, defaulted.
//! Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/{create,update,rest}.go`.

use super::call::Call;
use super::conversion;
use super::nesting;
use super::options::FieldValidation;
use crate::negotiation::{self, Input};
use coracle_api::protobuf;
use coracle_api::schema::{self, Decoded};
use coracle_meta::gvk::split_api_version;
use coracle_meta::{GroupVersionKind, Status};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

/// What an object says it is.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TypeMeta {
    api_version: Option<String>,
    kind: Option<String>,
}

/// The object of a request: parsed, of the right kind, with known fields only, converted and defaulted.
pub(crate) fn object(call: &Call, body: &[u8], validation: FieldValidation) -> Result<Value, Status> {
    let object = typed(call, body, &call.gvk(), validation)?;
    Ok(to_storage(call, object))
}

/// A body that is a `gvk`, as JSON or YAML. Unknown and repeated fields are dropped, and refused or warned about
/// as the request says.
pub(crate) fn typed(
    call: &Call,
    body: &[u8],
    gvk: &GroupVersionKind,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let json;
    let bytes = match negotiation::input(&call.headers)? {
        Input::Json => {
            nesting::check_text(body)?;
            body
        }
        Input::Yaml => {
            json = nesting::yaml_to_json(body).map_err(|error| unrecognised(body, &gvk.kind, &error))?;
            &json[..]
        }
        Input::Protobuf => {
            let unknown = protobuf::open(body).map_err(|error| unrecognised(body, &gvk.kind, &error))?;
            let meta = TypeMeta {
                api_version: Some(unknown.api_version.to_owned()),
                kind: Some(unknown.kind.to_owned()),
            };
            check_kind(&meta, gvk)?;
            let object = unknown
                .decode(gvk)
                .map_err(|error| unrecognised(body, &gvk.kind, &error))?;
            nesting::check(&object)?;
            return patched(call, &object, gvk, validation);
        }
    };
    let meta: TypeMeta =
        serde_json::from_slice(bytes).map_err(|error| unrecognised(body, &gvk.kind, &error))?;
    check_kind(&meta, gvk)?;
    let decoded = match schema::lookup(gvk) {
        Some(ty) => schema::decode(ty, bytes),
        None => return Err(Status::internal(format!("no schema of {}", gvk.kind))),
    };
    finish(call, gvk, decoded, validation)
}

/// The same for data that is parsed already: the result of a patch.
pub(crate) fn patched(
    call: &Call,
    object: &Value,
    gvk: &GroupVersionKind,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let Some(ty) = schema::lookup(gvk) else {
        return Err(Status::internal(format!("no schema of {}", gvk.kind)));
    };
    finish(call, gvk, schema::decode_value(ty, object), validation)
}

fn finish(
    call: &Call,
    gvk: &GroupVersionKind,
    decoded: Result<Decoded, schema::DecodeError>,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let refuse = |why: String| Status::bad_request(schema::cannot_be_handled(&gvk.kind, &gvk.version, why));
    let decoded = decoded.map_err(|error| refuse(error.to_string()))?;
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => call.warnings.extend(decoded.strict),
        FieldValidation::Strict if decoded.strict.is_empty() => {}
        FieldValidation::Strict => {
            return Err(refuse(format!(
                "strict decoding error: {}",
                decoded.strict.join(", ")
            )));
        }
    }
    let mut value = decoded.value;
    value["apiVersion"] = gvk.api_version().into();
    value["kind"] = gvk.kind.as_str().into();
    Ok(value)
}

/// Converts an object of the request's version to the storage version and defaults it.
pub(crate) fn to_storage(call: &Call, object: Value) -> Value {
    let mut object = conversion::to_storage(call.resource, object);
    if let Some(ty) = schema::lookup(&call.resource.storage_gvk()) {
        schema::set_defaults(ty, &mut object);
    }
    call.strategy.default(&mut object);
    object
}

/// A body of `DeleteOptions`.
pub(crate) fn delete_options(headers: &HeaderMap, body: &[u8]) -> Result<Value, Status> {
    let parsed = match negotiation::input(headers)? {
        Input::Json => {
            nesting::check_text(body)?;
            serde_json::from_slice(body).map_err(|error| error.to_string())
        }
        Input::Yaml => nesting::yaml_to_json(body)
            .and_then(|json| Ok(serde_json::from_slice(&json)?))
            .map_err(|error| error.to_string()),
        Input::Protobuf => protobuf::open(body)
            .and_then(|unknown| unknown.decode(&GroupVersionKind::new("", "v1", "DeleteOptions")))
            .map_err(|error| error.to_string()),
    };
    match parsed {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Status::bad_request(
            "decoded object cannot be converted to DeleteOptions",
        )),
        Err(error) => Err(Status::bad_request(error)),
    }
}

/// A body in protobuf as JSON, for those who read JSON only.
pub(crate) fn protobuf_to_json(body: &[u8]) -> Result<Vec<u8>, Status> {
    let refuse = |error: protobuf::ProtobufError| Status::bad_request(error.to_string());
    let unknown = protobuf::open(body).map_err(refuse)?;
    let gvk = GroupVersionKind::from_api_version(unknown.api_version, unknown.kind);
    let mut object = unknown.decode(&gvk).map_err(refuse)?;
    object["apiVersion"] = unknown.api_version.into();
    object["kind"] = unknown.kind.into();
    Ok(object.to_string().into_bytes())
}

fn unrecognised(body: &[u8], kind: &str, error: &dyn std::fmt::Display) -> Status {
    let start = String::from_utf8_lossy(&body[..body.len().min(30)]);
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: \
         {error} ({start:?})"
    ))
}

/// An object need not say what it is, but what it says must be true.
fn check_kind(meta: &TypeMeta, gvk: &GroupVersionKind) -> Result<(), Status> {
    let api_version = meta.api_version.as_deref().filter(|text| !text.is_empty());
    let kind = meta.kind.as_deref().filter(|text| !text.is_empty());
    let wanted = gvk.api_version();
    if let Some(kind) = kind.filter(|kind| *kind != gvk.kind) {
        let (_, version) = split_api_version(api_version.unwrap_or(&wanted));
        let wanted = &gvk.kind;
        return Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {wanted}: converting ({kind}) to ({wanted}): \
             unknown conversion"
        )));
    }
    match api_version {
        Some(version) if version != wanted => Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({wanted})"
        ))),
        _ => Ok(()),
    }
}
