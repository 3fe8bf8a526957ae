//! Patches of real kinds along the table.

use super::{pod, ty};
use crate::schema::{TypeRef, decode_value};
use coracle_meta::patch::apply::{self, Writer};
use coracle_meta::patch::{Kind, ListKind, Schema, strategic};
use serde_json::{Value, json};

fn strategically(ty: TypeRef, original: &Value, patch: &Value) -> Value {
    let mut result = original.clone();
    strategic::apply(ty, &mut result, patch).expect("applies");
    result
}

#[test]
fn kubectl_set_image() {
    let deployment = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "api", "image": "api:1", "env": [{"name": "DB", "value": "db"}]},
        {"name": "db", "image": "db:1"},
    ]}}}});
    let patch = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "api"}, {"name": "db"}],
        "containers": [{"name": "api", "image": "api:2"}],
    }}}});
    let result = strategically(ty("apps/v1", "Deployment"), &deployment, &patch);
    let containers = &result["spec"]["template"]["spec"]["containers"];
    assert_eq!(
        containers[0],
        json!({"name": "api", "image": "api:2", "env": [{"name": "DB", "value": "db"}]})
    );
    assert_eq!(containers[1]["image"], "db:1");
}

#[test]
fn a_volume_has_one_source() {
    let original = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let patch = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}});
    let result = strategically(pod(), &original, &patch);
    assert_eq!(
        result["spec"]["volumes"],
        json!([{"name": "v", "hostPath": {"path": "/x"}}])
    );
}

#[test]
fn conditions_merge_by_type_and_selectors_by_key() {
    let original = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Initialized", "status": "True"}]}});
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let result = strategically(pod(), &original, &patch);
    assert_eq!(
        result["status"]["conditions"][0],
        json!({"type": "Ready", "status": "True"})
    );
    let service =
        json!({"spec": {"selector": {"app": "a", "tier": "x"}, "ports": [{"port": 80, "nodePort": 30001}]}});
    let patch = json!({"spec": {"selector": {"tier": null}, "ports": [{"port": 80, "targetPort": "http"}]}});
    let result = strategically(ty("v1", "Service"), &service, &patch);
    assert_eq!(
        result["spec"],
        json!({"selector": {"app": "a"}, "ports": [{"port": 80, "nodePort": 30001, "targetPort": "http"}]})
    );
}

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        subresource: "",
        api_version: "v1",
        ignored: &[&["status"]],
        now: "2024-01-01T00:00:00Z".parse().expect("valid"),
    }
}

#[test]
fn applied_ports_are_told_apart_by_protocol() {
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dns", "namespace": "default"}, "spec": {"ports": ports}});
    let ty = ty("v1", "Service");
    let config =
        service(json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]));
    let live = apply::apply(ty, None, &config, &writer("a"), false).expect("applies");
    let config = service(json!([{"name": "dns", "port": 53, "protocol": "UDP"}]));
    let new = apply::apply(ty, Some(&live), &config, &writer("a"), false).expect("applies");
    assert_eq!(
        new["spec"]["ports"],
        json!([{"name": "dns", "port": 53, "protocol": "UDP"}])
    );
    assert_eq!(
        new["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:spec": {"f:ports": {"k:{\"port\":53,\"protocol\":\"UDP\"}": {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}}}}})
    );

    let twice = service(json!([{"port": 53}, {"port": 53, "protocol": "TCP"}]));
    let error = apply::apply(ty, None, &twice, &writer("a"), false).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (default/dns; v1, Kind=Service): .spec.ports: duplicate entries for key \
         [port=53,protocol=\"TCP\"]"
    );
    let unknown =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dns"}, "spec": {"foo": 1}});
    let error = apply::apply(ty, None, &unknown, &writer("a"), false).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (/dns; v1, Kind=Service): .spec.foo: field not declared in schema"
    );
}

#[test]
fn a_created_pod_is_tracked_as_upstream_does() {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"},
                     "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u"}]},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}},
                                 "securityContext": {}}],
                 "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]},
    });
    apply::track(pod(), None, &mut object, &writer("kube-controller-manager"));
    assert_eq!(
        object["metadata"]["managedFields"][0]["fieldsV1"],
        json!({
            "f:metadata": {
                "f:labels": {".": {}, "f:app": {}},
                "f:ownerReferences": {".": {}, "k:{\"uid\":\"u\"}": {}},
            },
            "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:name": {}, "f:image": {}, "f:securityContext": {},
                    "f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}}},
                }},
                "f:nodeSelector": {},
                "f:tolerations": {},
            },
        })
    );
    // The tracked form is the stored form.
    let decoded = decode_value(pod(), &object).expect("decodes");
    assert_eq!(decoded.value, object);
    assert_eq!(decoded.strict, Vec::<String>::new());
}

#[test]
fn every_keyed_list_has_its_keys() {
    for ty in crate::schema::types() {
        for field in ty.fields() {
            let element = field.ty.element();
            if let ListKind::Map(keys) = field.ty.list_kind() {
                for key in keys {
                    let declared = element.and_then(|e| e.child(key)).is_some();
                    assert!(declared, "{:?}.{}: {key}", ty.name(), field.name);
                }
            }
            if let (true, Some(key)) = (field.ty.kind() == Kind::List, field.ty.strategy().merge_key) {
                assert!(
                    element.and_then(|e| e.child(key)).is_some(),
                    "{:?}.{}: {key}",
                    ty.name(),
                    field.name
                );
            }
        }
    }
}
