//! The discovery documents of old: a list of groups and one of resources for each version.
//! Upstream: `metav1.APIGroupList`, `metav1.APIResourceList`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::resources::{self, ApiResource, Subresource, Verb};
use coracle_meta::gvk::join_api_version;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Every document by its path.
pub fn documents() -> HashMap<String, Value> {
    let mut documents = HashMap::new();
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (group, version) in resources::group_versions() {
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
        let path = match group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        documents.insert(path, resource_list(group, version));
    }
    let mut list = Vec::new();
    for (name, versions) in &groups {
        if name.is_empty() {
            documents.insert(
                "/api".to_owned(),
                json!({
                    "kind": "APIVersions",
                    "versions": versions,
                    "serverAddressByClientCIDRs": [],
                }),
            );
            continue;
        }
        let mut group = group(name, versions);
        list.push(group.clone());
        group["kind"] = "APIGroup".into();
        group["apiVersion"] = "v1".into();
        documents.insert(format!("/apis/{name}"), group);
    }
    documents.insert(
        "/apis".to_owned(),
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": list }),
    );
    documents
}

fn group(name: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({ "groupVersion": join_api_version(name, version), "version": version }))
        .collect();
    json!({ "name": name, "preferredVersion": versions[0], "versions": versions })
}

fn resource_list(group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for resource in resources::of_group_version(group, version) {
        list.push(entry(resource));
        list.extend(
            resource
                .subresources
                .iter()
                .map(|subresource| sub_entry(resource, subresource)),
        );
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": join_api_version(group, version),
        "resources": list,
    })
}

fn entry(resource: &ApiResource) -> Value {
    let mut entry = Map::new();
    entry.insert("name".into(), resource.plural.into());
    entry.insert("singularName".into(), resource.singular.into());
    entry.insert("namespaced".into(), resource.namespaced.into());
    entry.insert("kind".into(), resource.kind.into());
    entry.insert("verbs".into(), verbs(resource.verbs));
    if !resource.short_names.is_empty() {
        entry.insert("shortNames".into(), resource.short_names.into());
    }
    if !resource.categories.is_empty() {
        entry.insert("categories".into(), resource.categories.into());
    }
    if resource.is_stored() {
        entry.insert("storageVersionHash".into(), storage_version_hash(resource).into());
    }
    Value::Object(entry)
}

fn sub_entry(resource: &ApiResource, subresource: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.plural, subresource.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": resource.subresource_gvk(subresource).kind,
        "verbs": verbs(subresource.verbs),
    });
    if let Some((group, version, _)) = subresource.gvk
        && (group, version) != (resource.group, resource.version)
    {
        entry["group"] = group.into();
        entry["version"] = version.into();
    }
    entry
}

fn verbs(verbs: &[Verb]) -> Value {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

/// Upstream: `discovery.StorageVersionHash`.
fn storage_version_hash(resource: &ApiResource) -> String {
    let gvk = resource.storage_gvk();
    let hash = Sha256::digest(format!("{}/{}/{}", gvk.group, gvk.version, gvk.kind));
    STANDARD.encode(&hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_upstreams() {
        let documents = documents();
        assert_eq!(documents["/api"]["versions"], json!(["v1"]));
        let apps = &documents["/apis/apps/v1"];
        assert_eq!(apps["groupVersion"], "apps/v1");
        let resources = apps["resources"].as_array().unwrap();
        let named = |name: &str| resources.iter().find(|r| r["name"] == name).unwrap();
        assert_eq!(named("daemonsets")["storageVersionHash"], "dd7pWHUlMKQ=");
        assert_eq!(named("deployments/scale")["group"], "autoscaling");
        assert_eq!(named("deployments/scale")["kind"], "Scale");
        assert_eq!(
            documents["/apis/autoscaling"]["preferredVersion"]["version"],
            "v2"
        );
    }
}
