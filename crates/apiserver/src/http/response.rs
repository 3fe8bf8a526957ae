//! Responses that are no objects of the registry.

use super::body;
use crate::negotiation::{self, Encoding};
use crate::request::{Body, query_value};
use bytes::Bytes;
use coracle_meta::Status;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::Value;

/// A response with this body.
pub fn of(code: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Text.
pub fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    of(code, "text/plain; charset=utf-8", text)
}

/// A `Status`, in YAML where that is preferred and in JSON otherwise: errors are always readable.
pub fn status(status: &Status, headers: &HeaderMap) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let encoding = negotiation::output(headers).map_or(Encoding::Json, |media| media.encoding);
    let mut response = of(code, encoding.content_type(), encode(status, encoding));
    let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Whether JSON is to be written for the eye: the client says so, or is curl or a browser. Upstream: `isPrettyPrint`.
pub fn is_for_people(uri: &Uri, headers: &HeaderMap) -> bool {
    if let Some(pretty) = query_value(uri, "pretty").filter(|value| !value.is_empty()) {
        return matches!(pretty.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let tools = ["curl", "Wget", "Mozilla/5.0"];
    agent.is_some_and(|agent| tools.iter().any(|tool| agent.starts_with(tool)))
}

/// The response with its JSON indented; what is no JSON stays as it is.
pub async fn indented(response: Response<Body>) -> Response<Body> {
    if response.headers().get(header::CONTENT_TYPE) != Some(&HeaderValue::from_static("application/json")) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = body.collect().await else {
        // Bodies are made in memory here; one that breaks off has nothing to show.
        return Response::from_parts(parts, body::full(""));
    };
    let bytes = bytes.to_bytes();
    let pretty = serde_json::from_slice::<Value>(&bytes)
        .and_then(|value| serde_json::to_vec_pretty(&value))
        .map_or(bytes, Bytes::from);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body::full(pretty))
}

/// Data as bytes.
pub fn encode(value: &impl Serialize, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Json => to_json(value),
        Encoding::Yaml => serde_saphyr::to_string(value)
            .expect("API data has string keys and no cycles")
            .into_bytes(),
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("API data has string keys")
}
