mod patches;

use super::*;
use coracle_meta::patch::Schema;
use serde_json::json;

fn ty(api_version: &str, kind: &str) -> TypeRef {
    lookup(&GroupVersionKind::from_api_version(api_version, kind)).expect(kind)
}

fn pod() -> TypeRef {
    ty("v1", "Pod")
}

fn strict(ty: TypeRef, json: &str) -> Vec<String> {
    decode(ty, json.as_bytes()).expect("decodes").strict
}

fn refusal(ty: TypeRef, json: &Value) -> String {
    let text = json.to_string();
    let error = decode(ty, text.as_bytes()).expect_err("refused");
    assert_eq!(
        decode_value(ty, json),
        Err(error.clone()),
        "text and value are refused alike"
    );
    error.to_string()
}

#[test]
fn every_resource_has_a_type() {
    for resource in crate::resources::all() {
        assert!(lookup(&resource.gvk()).is_some(), "{}", resource.kind);
        for sub in resource.subresources {
            let gvk = resource.subresource_gvk(sub);
            // Options of connections come as query parameters, never as bodies.
            assert!(gvk.kind.ends_with("Options") || lookup(&gvk).is_some(), "{gvk:?}");
        }
        if resource.is_stored() {
            let list = GroupVersionKind::new(resource.group, resource.version, resource.list_kind());
            assert!(lookup(&list).is_some(), "{list:?}");
        }
    }
    assert!(lookup(&GroupVersionKind::new("apps", "v1", "DeleteOptions")).is_some());
    assert!(lookup(&GroupVersionKind::new("apps", "v9", "Deployment")).is_none());
}

#[test]
fn table_is_ordered_and_small() {
    let names: Vec<_> = types().filter_map(TypeRef::name).collect();
    assert!(names.is_sorted());
    for ty in types() {
        assert!(ty.fields().map(|f| f.name).is_sorted(), "{:?}", ty.name());
        assert_eq!(by_name(ty.name().expect("named")), Some(ty));
    }
    let bytes = TABLE.types.len() * size_of::<Type>()
        + TABLE.fields.len() * size_of::<Field>()
        + TABLE.expressions.len() * size_of::<Expression>()
        + TABLE.attributes.len() * size_of::<Attributes>();
    assert!(bytes < 160 * 1024, "{bytes} bytes");
}

#[test]
fn facts_of_patches() {
    let containers = pod().at(&["spec", "containers"]).expect("field");
    assert_eq!(containers.list_kind(), ListKind::Map(&["name"]));
    assert_eq!(containers.strategy().merge_key, Some("name"));
    assert!(containers.strategy().merge);
    let ports = pod().at(&["spec", "containers", "ports"]).expect("field");
    assert_eq!(ports.list_kind(), ListKind::Map(&["containerPort", "protocol"]));
    assert_eq!(ports.strategy().merge_key, Some("containerPort"));
    let protocol = pod()
        .at(&["spec", "containers", "ports", "protocol"])
        .expect("field");
    assert_eq!(Schema::default(protocol), Some(json!("TCP")));
    let volumes = pod().at(&["spec", "volumes"]).expect("field");
    assert!(volumes.strategy().retain_keys);
    let finalizers = pod().at(&["metadata", "finalizers"]).expect("field");
    assert_eq!(finalizers.list_kind(), ListKind::Set);
    let args = pod().at(&["spec", "containers", "args"]).expect("field");
    assert_eq!(args.list_kind(), ListKind::Atomic);
    let selector = ty("apps/v1", "ReplicaSet")
        .at(&["spec", "selector"])
        .expect("field");
    assert!(selector.is_atomic());
    let claim = ty("v1", "PersistentVolume")
        .at(&["spec", "claimRef"])
        .expect("field");
    assert!(!claim.is_atomic(), "the field overrides its type");
    let strategy = ty("apps/v1", "Deployment")
        .at(&["spec", "strategy"])
        .expect("field");
    assert!(strategy.strategy().retain_keys);
    assert_eq!(pod().at(&["spec", "nonsense"]), None);
}

#[test]
fn unknown_and_duplicate_fields() {
    let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","name":"b","labels":{"x":"1","x":"2"}},
        "spec":{"containers":[{"name":"c"},{"name":"d","imagee":"x"}],"foo":{"bar":1}},"extra":1}"#;
    let decoded = decode(pod(), json.as_bytes()).expect("decodes");
    assert_eq!(
        decoded.strict,
        [
            r#"duplicate field "metadata.name""#,
            r#"duplicate field "metadata.labels.x""#,
            r#"unknown field "spec.containers[1].imagee""#,
            r#"unknown field "spec.foo""#,
            r#"unknown field "extra""#,
        ]
    );
    assert_eq!(
        decoded.value,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b", "labels": {"x": "2"}},
               "spec": {"containers": [{"name": "c"}, {"name": "d"}]}})
    );
    // Names are compared exactly.
    assert_eq!(strict(pod(), r#"{"Spec":{}}"#), [r#"unknown field "Spec""#]);
}

#[test]
fn wrong_types() {
    let cases = [
        (
            json!({"spec": 1}),
            "json: cannot unmarshal number into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (
            json!({"spec": {"containers": "x"}}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            json!({"spec": {"containers": [{"env": [{"name": "A", "value": 1}]}]}}),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            json!({"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}}),
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of \
             type int32",
        ),
        (
            json!({"spec": {"terminationGracePeriodSeconds": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.terminationGracePeriodSeconds of \
             type int64",
        ),
        (
            json!({"spec": {"priority": 9_999_999_999_i64}}),
            "json: cannot unmarshal number 9999999999 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            json!({"metadata": {"labels": {"a": true}}}),
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            json!({"metadata": {"labels": ["a"]}}),
            "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            json!([]),
            "json: cannot unmarshal array into Go value of type v1.Pod",
        ),
        (
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            json!({"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": true}}}]}}),
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            json!({"metadata": {"creationTimestamp": "yesterday"}}),
            "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
        ),
    ];
    for (object, message) in cases {
        assert_eq!(refusal(pod(), &object), message);
    }
    let secret = ty("v1", "Secret");
    assert_eq!(
        refusal(secret, &json!({"data": {"a": "%"}})),
        "illegal base64 data at input byte 0"
    );
    let message = cannot_be_handled("Pod", "v1", DecodeError::Type("x".into()));
    assert_eq!(message, "Pod in version \"v1\" cannot be handled as a Pod: x");
    assert!(matches!(
        decode(pod(), b"{\"spec\":"),
        Err(DecodeError::Syntax(_))
    ));
    assert!(matches!(decode(pod(), b"{} x"), Err(DecodeError::Syntax(_))));
}

#[test]
fn stored_form() {
    let decoded = decode_value(
        pod(),
        &json!({
            "metadata": {"name": "a", "labels": {}, "creationTimestamp": null, "finalizers": [],
                         "annotations": {"k": null}},
            "spec": {
                "containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
                                "env": [], "securityContext": {}, "livenessProbe": {"httpGet": {"port": 80}}}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
            "status": {"startTime": "2024-01-01T02:00:00.5+02:00"},
        }),
    )
    .expect("decodes");
    assert_eq!(decoded.strict, Vec::<String>::new());
    assert_eq!(
        decoded.value,
        json!({
            "metadata": {"name": "a", "annotations": {"k": ""}},
            "spec": {
                "containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                                "securityContext": {}, "livenessProbe": {"httpGet": {"port": 80}}}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
            "status": {"startTime": "2024-01-01T00:00:00Z"},
        })
    );
    assert_eq!(
        decode_value(pod(), &decoded.value).expect("again").value,
        decoded.value
    );
}

#[test]
fn opaque_content_is_kept() {
    let revision = ty("apps/v1", "ControllerRevision");
    let object = json!({"data": {"spec": {"a": null, "b": [1, {"c": {}}]}}, "revision": 1});
    assert_eq!(decode_value(revision, &object).expect("decodes").value, object);
    let definition = ty("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let object = json!({"spec": {"versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"properties": {"x": {"default": {"y": null}, "items": {"type": "string"}}}}}}]}});
    assert_eq!(decode_value(definition, &object).expect("decodes").value, object);
}

#[test]
fn declared_defaults() {
    let mut service = json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}});
    set_defaults(ty("v1", "Service"), &mut service);
    assert_eq!(
        service,
        json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}})
    );
}
