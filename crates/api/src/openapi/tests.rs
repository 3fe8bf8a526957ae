use super::*;
use crate::resources::Verb;

fn document(group: &str, version: &str) -> Value {
    serde_json::from_slice(&v3(group, version).expect("served")).expect("JSON")
}

/// Every `$ref` in a document.
fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str));
            object.values().for_each(|v| references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

#[test]
fn documents_refer_only_to_what_they_contain() {
    for (group, version) in resources::group_versions() {
        let document = document(group, version);
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(
                document.pointer(&reference[1..]).is_some(),
                "{group}/{version}: {reference}"
            );
        }
    }
    let document: Value = serde_json::from_slice(&v2()).expect("JSON");
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in found {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
    assert_eq!(v3("apps", "v9"), None);
}

#[test]
fn the_index_names_every_document() {
    let index = index();
    let paths = index["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), resources::group_versions().len());
    let url = paths["apis/apps/v1"]["serverRelativeURL"].as_str().expect("url");
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    assert!(paths.contains_key("api/v1"));
}

#[test]
fn kubectl_finds_field_validation() {
    for resource in resources::all().iter().filter(|r| r.has_verb(Verb::Patch)) {
        let document = document(resource.group, resource.version);
        let found = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .any(|item| {
                let patch = &item["patch"];
                let kind = &patch["x-kubernetes-group-version-kind"];
                let parameters = patch["parameters"].as_array();
                kind["kind"] == resource.kind
                    && parameters.is_some_and(|p| {
                        p.iter()
                            .any(|p| p["in"] == "query" && p["name"] == "fieldValidation")
                    })
            });
        assert!(found, "{}", resource.kind);
    }
}

#[test]
fn patches_find_their_merge_keys() {
    let document = document("apps", "v1");
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(
        *containers,
        json!({
            "type": "array",
            "items": {"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"},
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-merge-key": "name",
            "x-kubernetes-patch-strategy": "merge",
        })
    );
    let set = &schemas["io.k8s.api.apps.v1.ReplicaSet"];
    assert_eq!(
        set["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "ReplicaSet"}])
    );
    assert_eq!(
        schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"]["default"],
        "TCP"
    );
}

#[test]
fn operations_have_upstreams_names() {
    let paths = document("", "v1")["paths"].clone();
    let id = |path: &str, method: &str| {
        paths[path][method]["operationId"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let pods = "/api/v1/namespaces/{namespace}/pods";
    assert_eq!(id(pods, "get"), "listCoreV1NamespacedPod");
    assert_eq!(id(pods, "delete"), "deleteCoreV1CollectionNamespacedPod");
    assert_eq!(id("/api/v1/pods", "get"), "listCoreV1PodForAllNamespaces");
    assert_eq!(
        id(&format!("{pods}/{{name}}"), "put"),
        "replaceCoreV1NamespacedPod"
    );
    assert_eq!(
        id(&format!("{pods}/{{name}}/exec"), "post"),
        "connectCoreV1PostNamespacedPodExec"
    );
    assert_eq!(
        id(&format!("{pods}/{{name}}/status"), "patch"),
        "patchCoreV1NamespacedPodStatus"
    );
    let paths = document("rbac.authorization.k8s.io", "v1")["paths"].clone();
    let role = &paths["/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}"]["get"];
    assert_eq!(role["operationId"], "readRbacAuthorizationV1ClusterRole");
    assert_eq!(role["tags"], json!(["rbacAuthorization_v1"]));
}
