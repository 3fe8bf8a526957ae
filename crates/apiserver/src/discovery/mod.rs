//! What the server serves: `/api`, `/apis`, their groups and versions, `/version`, health, metrics.
//! Upstream: `k8s.io/apiserver/pkg/endpoints/discovery`.

mod aggregated;
mod groups;
mod health;
mod openapi;

use crate::ApiServer;
use crate::config::Document;
use crate::http::{no_such_resource, response};
use crate::negotiation::{Encoding, accept};
use crate::request::Body;
use bytes::Bytes;
use coracle_meta::{KUBERNETES_VERSION, Status};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Everything that does not change while the server runs.
pub(crate) struct Documents {
    by_path: HashMap<String, Value>,
    /// For `/api` and `/apis` with `as=APIGroupDiscoveryList`, and their entity tags.
    aggregated: HashMap<&'static str, (Value, HeaderValue)>,
}

impl Documents {
    /// Beside the API others are served.
    pub fn new(others: &[Document]) -> Self {
        let mut by_path = groups::documents();
        by_path.insert("/version".to_owned(), version());
        let others = others.iter().map(|document| document.path);
        let paths = paths(by_path.keys().map(String::as_str).chain(others));
        by_path.insert("/".to_owned(), paths);
        let aggregated = ["/api", "/apis"].map(|path| {
            let document = aggregated::document(path == "/api");
            let hash = Sha256::digest(document.to_string().as_bytes());
            let digits: String = hash.iter().map(|byte| format!("{byte:02X}")).collect();
            let tag = HeaderValue::from_str(&format!("\"{digits}\"")).expect("hex digits in quotes");
            (path, (document, tag))
        });
        Self {
            by_path,
            aggregated: HashMap::from(aggregated),
        }
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": format!("{KUBERNETES_VERSION}+coracle-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, arch()),
    })
}

/// Go's name of this architecture.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn paths<'a>(documents: impl Iterator<Item = &'a str>) -> Value {
    let mut paths: Vec<&str> = documents.collect();
    paths.extend([
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
    ]);
    paths.sort_unstable();
    json!({ "paths": paths })
}

impl ApiServer {
    /// Answers a request that is about no resource.
    pub(crate) fn discovery(&self, request: &Request<Body>) -> Result<Response<Body>, Status> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(no_such_resource());
        }
        let path = match request.uri().path() {
            "/" => "/",
            path => path.trim_end_matches('/'),
        };
        if let Some((document, tag)) = self.discovery.aggregated.get(path)
            && let Some(version) = wants_aggregated(request.headers())
        {
            return Ok(aggregated_response(document, tag, version, request.headers()));
        }
        if let Some(document) = self.discovery.by_path.get(path) {
            return Ok(negotiated(document, request.headers()));
        }
        if let Some(document) = self.config.documents.iter().find(|d| d.path == path) {
            let bytes = response::encode(&document.body, Encoding::Json);
            let mut response = response::of(StatusCode::OK, document.content_type, bytes);
            let keep = HeaderValue::from_static("public, max-age=3600");
            response.headers_mut().insert(header::CACHE_CONTROL, keep);
            return Ok(response);
        }
        match path {
            "/healthz" | "/livez" | "/readyz" => {
                Ok(health::answer(path, request.uri(), &self.registry.store))
            }
            _ if path.starts_with("/openapi/") => openapi::answer(path, request.uri(), request.headers()),
            "/metrics" => {
                let text = self.metrics.text(&self.registry.store);
                let bytes = Bytes::from(text);
                Ok(response::of(
                    StatusCode::OK,
                    "text/plain; version=0.0.4; charset=utf-8",
                    bytes,
                ))
            }
            _ if path.starts_with("/healthz/")
                || path.starts_with("/livez/")
                || path.starts_with("/readyz/") =>
            {
                health::check(path)
            }
            _ => Err(no_such_resource()),
        }
    }
}

fn negotiated(document: &Value, headers: &HeaderMap) -> Response<Body> {
    let encoding = accept(headers)
        .iter()
        .find_map(|clause| clause.encoding())
        .unwrap_or(Encoding::Json);
    response::of(
        StatusCode::OK,
        encoding.content_type(),
        response::encode(document, encoding),
    )
}

/// The version of aggregated discovery that the client prefers to everything else.
fn wants_aggregated(headers: &HeaderMap) -> Option<&'static str> {
    let clauses = accept(headers);
    let best = clauses.iter().find(|clause| clause.encoding().is_some())?;
    let aggregated =
        best.parameter("g") == "apidiscovery.k8s.io" && best.parameter("as") == "APIGroupDiscoveryList";
    match best.parameter("v") {
        "v2" if aggregated => Some("v2"),
        "v2beta1" if aggregated => Some("v2beta1"),
        _ => None,
    }
}

fn aggregated_response(
    document: &Value,
    tag: &HeaderValue,
    version: &'static str,
    headers: &HeaderMap,
) -> Response<Body> {
    let unchanged = headers.get(header::IF_NONE_MATCH) == Some(tag);
    let mut response = if unchanged {
        let mut response = response::text(StatusCode::NOT_MODIFIED, "");
        response.headers_mut().remove(header::CONTENT_TYPE);
        response
    } else {
        let mut document = document.clone();
        document["apiVersion"] = format!("apidiscovery.k8s.io/{version}").into();
        let content_type = match version {
            "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        };
        response::of(
            StatusCode::OK,
            content_type,
            response::encode(&document, Encoding::Json),
        )
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag.clone());
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}
