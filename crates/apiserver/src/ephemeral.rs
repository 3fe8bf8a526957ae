//! Objects that are answered and not stored: reviews and token requests. JSON in, the completed object out.
//! Upstream: the `create`-only storages of `pkg/registry/{authentication,authorization}`.

use crate::http::{body, response};
use crate::request::Body;
use coracle_meta::Status;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

/// Reads the JSON object in the body, which must be of this kind where it says one.
pub async fn read(request: Request<Body>, api_version: &str, kind: &str) -> Result<Value, Status> {
    let bytes = body::read(request.into_body()).await?;
    let unrecognized = |why: &str| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why}"
        ))
    };
    let mut object: Value =
        serde_json::from_slice(&bytes).map_err(|error| unrecognized(&error.to_string()))?;
    let fields = object
        .as_object_mut()
        .ok_or_else(|| unrecognized("not an object"))?;
    for (key, expected) in [("apiVersion", api_version), ("kind", kind)] {
        let given = fields.entry(key).or_insert_with(|| expected.into());
        if given != expected {
            return Err(Status::bad_request(format!(
                "the {key} in the data ({given}) does not match the expected {key} ({expected})"
            )));
        }
    }
    if !fields.get("metadata").is_some_and(Value::is_object) {
        fields.insert("metadata".to_owned(), json!({}));
    }
    Ok(object)
}

/// 201 with the object.
pub fn created(object: &Value) -> Response<Body> {
    response::of(StatusCode::CREATED, "application/json", object.to_string())
}
