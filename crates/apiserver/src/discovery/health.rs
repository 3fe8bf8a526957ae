//! `/healthz`, `/livez`, `/readyz`. Upstream: `k8s.io/apiserver/pkg/server/healthz`.

use crate::http::{no_such_resource, response};
use crate::request::{Body, query_pairs};
use coracle_meta::Status;
use coracle_store::Store;
use http::{Response, StatusCode, Uri};
use std::fmt::Write;

/// What is checked. The store is in this process: whoever answers has it.
const CHECKS: &[&str] = &["ping", "log", "etcd"];

/// The answer of a health path as a whole.
pub fn answer(path: &str, uri: &Uri, store: &Store) -> Response<Body> {
    let name = path.trim_start_matches('/');
    let healthy = store.is_writable();
    let code = if healthy {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let verbose = query_pairs(uri).any(|(key, _)| key == "verbose");
    if healthy && !verbose {
        return response::text(code, "ok");
    }
    let mut text = String::new();
    for check in CHECKS {
        let ok = healthy || *check != "etcd";
        let _ = if ok {
            writeln!(text, "[+]{check} ok")
        } else {
            writeln!(text, "[-]{check} failed: the store takes no more writes")
        };
    }
    let _ = writeln!(text, "{name} check {}", if healthy { "passed" } else { "failed" });
    response::text(code, text)
}

/// The answer of one check.
pub fn check(path: &str) -> Result<Response<Body>, Status> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if CHECKS.contains(&name) {
        return Ok(response::text(StatusCode::OK, "ok"));
    }
    Err(no_such_resource())
}
