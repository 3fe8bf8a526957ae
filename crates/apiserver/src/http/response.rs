//! Responses that are no objects of the registry.

use super::body;
use crate::negotiation::{self, Encoding};
use crate::request::Body;
use bytes::Bytes;
use coracle_meta::Status;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

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
