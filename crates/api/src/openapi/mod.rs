//! OpenAPI documents of the built-in kinds, made from the schema table and the list of resources when they are
//! asked for: `/openapi/v3` and its documents for each group and version, and `/openapi/v2`. Without prose.
//! Upstream: `k8s.io/kube-openapi` and `api/openapi-spec`.
//!
//! Left out: the paths `/watch/…`, deprecated since 1.11, and the parameters of connections to pods.

mod operations;
mod protobuf;
#[cfg(test)]
mod tests;
mod types;

use crate::{resources, schema};
use coracle_meta::KUBERNETES_VERSION;
use operations::{Form, Path};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The path of an API: `api/v1`, `apis/apps/v1`.
fn api_path(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// The entry of `/openapi/v3` for one document: its path, and where it is. Clients may keep a document as long as
/// the address with its `hash` stays the same.
pub fn index_entry(group: &str, version: &str) -> (String, Value) {
    let path = api_path(group, version);
    let url = format!("/openapi/v3/{path}?hash={}", schema::fingerprint());
    (path, json!({"serverRelativeURL": url}))
}

/// The body of `/openapi/v3`, for the built-in kinds. Custom resources add their entries under `paths`.
pub fn index() -> Value {
    let entries = resources::group_versions()
        .into_iter()
        .map(|(group, version)| index_entry(group, version));
    json!({"paths": entries.collect::<Map<_, _>>()})
}

/// The document of one group and version; `None` if it is not served.
pub fn v3(group: &str, version: &str) -> Option<Vec<u8>> {
    let paths = operations::of_group_version(group, version);
    if paths.is_empty() {
        return None;
    }
    let mut names = BTreeSet::new();
    for path in &paths {
        path.type_names(&mut names);
    }
    for resource in resources::of_group_version(group, version) {
        names.extend(schema::lookup(&resource.gvk()).and_then(|ty| ty.name()));
    }
    let mut out = Vec::with_capacity(256 * 1024);
    let info = json!({"title": "Kubernetes", "version": KUBERNETES_VERSION});
    out.extend_from_slice(format!(r#"{{"openapi":"3.0.0","info":{info},"paths":{{"#).as_bytes());
    write_paths(&mut out, &paths, Form::V3);
    out.extend_from_slice(br#"},"components":{"schemas":{"#);
    write_types(&mut out, names, Form::V3);
    out.extend_from_slice(br#"},"securitySchemes":"#);
    write(&mut out, &security());
    out.extend_from_slice(b"}}");
    Some(out)
}

/// The body of `/openapi/v2`.
pub fn v2() -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * 1024 * 1024);
    write(&mut out, &v2_head());
    // The object goes on.
    out.pop();
    out.extend_from_slice(br#","paths":{"#);
    write_paths(&mut out, &v2_paths(), Form::V2);
    out.extend_from_slice(br#"},"definitions":{"#);
    write_types(&mut out, v2_types(), Form::V2);
    out.extend_from_slice(b"}}");
    out
}

/// The body of `/openapi/v2` in protobuf: an `openapi.v2.Document` of gnostic.
pub fn v2_protobuf() -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * 1024 * 1024);
    protobuf::DOCUMENT.write(&v2_head(), &mut out);
    for path in v2_paths() {
        let item = json!({"paths": {path.path.as_str(): path.item(Form::V2)}});
        protobuf::DOCUMENT.write(&item, &mut out);
    }
    for (name, document) in documents(v2_types(), Form::V2) {
        protobuf::DOCUMENT.write(&json!({"definitions": {name: document}}), &mut out);
    }
    out
}

/// All but the paths and the definitions.
fn v2_head() -> Value {
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "security": [{"BearerToken": []}],
        "securityDefinitions": security(),
    })
}

fn v2_paths() -> Vec<Path> {
    resources::group_versions()
        .into_iter()
        .flat_map(|(group, version)| operations::of_group_version(group, version))
        .collect()
}

fn v2_types() -> BTreeSet<&'static str> {
    schema::types().filter_map(|ty| ty.name()).collect()
}

fn security() -> Value {
    json!({"BearerToken": {
        "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication",
    }})
}

fn write(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).expect("writing JSON to memory cannot fail");
}

/// Members of an object, one at a time: a whole document as a tree would take many times its size.
fn write_members(out: &mut Vec<u8>, members: impl Iterator<Item = (String, Value)>) {
    for (i, (name, value)) in members.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, &Value::String(name));
        out.push(b':');
        write(out, &value);
    }
}

fn write_paths(out: &mut Vec<u8>, paths: &[Path], form: Form) {
    write_members(out, paths.iter().map(|path| (path.path.clone(), path.item(form))));
}

/// Writes the named types and all that they refer to.
fn write_types(out: &mut Vec<u8>, names: BTreeSet<&'static str>, form: Form) {
    write_members(out, documents(names, form));
}

/// The named types and all that they refer to.
fn documents(names: BTreeSet<&'static str>, form: Form) -> impl Iterator<Item = (String, Value)> {
    types::closure(names).into_iter().filter_map(move |name| {
        let ty = schema::by_name(name)?;
        Some((format!("{}{name}", schema::PREFIX), types::document(ty, form)))
    })
}
