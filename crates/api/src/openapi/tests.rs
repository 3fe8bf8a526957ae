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

/// The fields with a number, as messages.
fn inside(bytes: &[u8], number: u32) -> Vec<&[u8]> {
    crate::protobuf::wire::fields(bytes)
        .map(|field| field.expect("well-formed"))
        .filter(|(n, _)| *n == number)
        .map(|(_, payload)| payload.bytes().expect("bytes"))
        .collect()
}

/// The `Named…` messages at a field of a field, by name; the value is field 2.
fn named(bytes: &[u8], way: [u32; 2]) -> std::collections::BTreeMap<String, Vec<u8>> {
    let entries = inside(bytes, way[0])
        .into_iter()
        .flat_map(|outer| inside(outer, way[1]));
    entries
        .map(|entry| (text_of(entry, 1), inside(entry, 2)[0].to_vec()))
        .collect()
}

fn text_of(bytes: &[u8], number: u32) -> String {
    String::from_utf8(inside(bytes, number).concat()).expect("UTF-8")
}

#[test]
fn protobuf_says_what_json_says() {
    let json: Value = serde_json::from_slice(&v2()).expect("JSON");
    let protobuf = v2_protobuf();
    assert_eq!(text_of(&protobuf, 1), "2.0");
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().expect("object").keys().cloned().collect() };
    let paths = named(&protobuf, [8, 2]);
    let definitions = named(&protobuf, [9, 1]);
    let mut expected = keys(&json["paths"]);
    expected.sort_unstable();
    assert_eq!(paths.keys().cloned().collect::<Vec<_>>(), expected);
    let mut expected = keys(&json["definitions"]);
    expected.sort_unstable();
    assert_eq!(definitions.keys().cloned().collect::<Vec<_>>(), expected);

    let patch = inside(
        &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"],
        8,
    )[0]
    .to_vec();
    assert_eq!(text_of(&patch, 5), "patchAppsV1NamespacedDeployment");
    // ParametersItem.parameter, Parameter.body_parameter, BodyParameter.schema; non_body_parameter, …
    let parameters: Vec<&[u8]> = inside(&patch, 8)
        .into_iter()
        .map(|item| inside(item, 1)[0])
        .collect();
    let body = parameters
        .iter()
        .flat_map(|p| inside(p, 1))
        .next()
        .expect("a body");
    assert_eq!(text_of(body, 2), "body");
    assert!(text_of(inside(body, 5)[0], 1).ends_with("apimachinery.pkg.apis.meta.v1.Patch"));
    let query: Vec<String> = parameters
        .iter()
        .flat_map(|p| inside(p, 2))
        .flat_map(|p| inside(p, 3))
        .map(|p| text_of(p, 4))
        .collect();
    assert_eq!(query, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let extensions: Vec<(String, String)> = inside(&patch, 13)
        .into_iter()
        .map(|named| (text_of(named, 1), text_of(inside(named, 2)[0], 2)))
        .collect();
    assert!(extensions.contains(&("x-kubernetes-action".to_owned(), "\"patch\"".to_owned())));

    let pod_spec = &definitions["io.k8s.api.core.v1.PodSpec"];
    assert_eq!(text_of(pod_spec, 19), "containers");
    assert_eq!(text_of(inside(pod_spec, 22)[0], 1), "object");
    let containers = &named(pod_spec, [25, 1])["containers"];
    let items = inside(inside(containers, 23)[0], 1)[0];
    assert_eq!(text_of(items, 1), "#/definitions/io.k8s.api.core.v1.Container");
}
