//! `/openapi/v2` and `/openapi/v3`. Documents are made when they are asked for: clients keep them for as long as the
//! hash in their address stays. Upstream: `k8s.io/kube-openapi/pkg/handler3`.

use crate::http::{no_such_resource, response};
use crate::negotiation::accept;
use crate::request::{Body, query_value};
use coracle_api::{openapi, schema};
use coracle_meta::Status;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What older clients ask for; a media type may have no `@`.
const PROTOBUF_DEPRECATED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The document at a path below `/openapi`.
pub fn answer(path: &str, uri: &Uri, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    let hash = schema::fingerprint().to_string();
    let tag = HeaderValue::from_str(&format!("\"{hash}\"")).map_err(Status::internal)?;
    if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        let mut response = response::text(StatusCode::NOT_MODIFIED, "");
        response.headers_mut().insert(header::ETAG, tag);
        return Ok(response);
    }
    let content_type = match path {
        "/openapi/v2" => negotiate(headers, &[JSON, PROTOBUF_DEPRECATED, PROTOBUF]),
        _ => negotiate(headers, &[JSON]),
    };
    let document = match (path, content_type) {
        (_, None) => return Ok(response::text(StatusCode::NOT_ACCEPTABLE, "")),
        ("/openapi/v2", Some(JSON)) => openapi::v2(),
        ("/openapi/v2", _) => openapi::v2_protobuf(),
        ("/openapi/v3", _) => openapi::index().to_string().into_bytes(),
        (path, _) => of_group_version(path).ok_or_else(no_such_resource)?,
    };
    let content_type = match content_type {
        Some(JSON) | None => JSON,
        Some(_) => PROTOBUF,
    };
    let mut response = response::of(StatusCode::OK, content_type, document);
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag);
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if query_value(uri, "hash").is_some_and(|asked| asked == hash) {
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, immutable"),
        );
    }
    Ok(response)
}

/// The first of these that the client accepts.
fn negotiate(headers: &HeaderMap, offered: &[&'static str]) -> Option<&'static str> {
    accept(headers).iter().find_map(|clause| match clause.media {
        "*/*" | "application/*" => offered.first().copied(),
        media => offered.iter().copied().find(|offer| *offer == media),
    })
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/apps/v1`.
fn of_group_version(path: &str) -> Option<Vec<u8>> {
    let mut parts = path.strip_prefix("/openapi/v3/")?.split('/');
    let (group, version) = match parts.next()? {
        "api" => ("", parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _ => return None,
    };
    match parts.next() {
        None => openapi::v3(group, version),
        Some(_) => None,
    }
}
