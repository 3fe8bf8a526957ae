//! Golden cases across kinds: what users write, what becomes of it, and what they are told.

use crate::strategy::{Strategy, strategy};
use coracle_meta::FieldError;
use serde_json::{Value, json};

/// The errors as users read them, in one line.
pub(crate) fn texts(errors: &[FieldError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Defaults and prepares a new object, and says what is wrong with it.
pub(crate) fn create(kind: &dyn Strategy, object: &mut Value) -> String {
    kind.default(object);
    let once = object.clone();
    kind.default(object);
    assert_eq!(*object, once, "defaulting twice changes nothing");
    kind.prepare_for_create(object);
    texts(&kind.validate(object))
}

/// Defaults and prepares an update, and says what is wrong with it.
pub(crate) fn update(kind: &dyn Strategy, object: &mut Value, old: &Value) -> String {
    kind.default(object);
    kind.prepare_for_update(object, old);
    texts(&kind.validate_update(object, old))
}

/// The row of an object made at the beginning of 2026, five minutes later.
pub(crate) fn row(kind: &dyn Strategy, object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    let now = "2026-01-01T00:05:00Z".parse().expect("a time");
    Value::Array((kind.table().cells)(&object, now))
}

/// A new object with that name; namespaced ones are in `default`.
pub(crate) fn named(kind: &dyn Strategy, name: &str, mut object: Value) -> Value {
    object["metadata"]["name"] = json!(name);
    if kind.facts().namespaced {
        object["metadata"]["namespace"] = json!("default");
    }
    object
}

/// What is wrong with a new object that is otherwise well named.
pub(crate) fn wrong(kind: &dyn Strategy, object: Value) -> String {
    create(kind, &mut named(kind, "a", object))
}

fn replica_set(labels: &Value, selector: &Value) -> Value {
    json!({
        "metadata": {"name": "go-demo-2", "namespace": "default"},
        "spec": {
            "replicas": 2,
            "selector": selector,
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [
                    {"name": "db", "image": "mongo:3.3", "command": ["mongod"],
                     "args": ["--rest", "--httpinterface"],
                     "ports": [{"containerPort": 28017, "protocol": "TCP"}]},
                    {"name": "api", "image": "vfarcic/go-demo-2",
                     "env": [{"name": "DB", "value": "localhost"}],
                     "livenessProbe": {"httpGet": {"path": "/demo/hello", "port": 8080}}},
                ]},
            },
        },
    })
}

#[test]
fn the_tutorials_replica_set() {
    let kind = strategy("apps", "ReplicaSet");
    let labels = json!({"type": "backend", "service": "go-demo-2"});
    let mut set = replica_set(&labels, &json!({"matchLabels": labels}));
    assert_eq!(create(kind, &mut set), "");
    assert_eq!(set["metadata"]["generation"], 1);
    assert_eq!(set["status"], json!({"replicas": 0}));
    let db = &set["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(db["imagePullPolicy"], "IfNotPresent");
    assert_eq!(db["resources"], json!({}));
    assert!(
        set["spec"]["template"]["spec"]
            .get("enableServiceLinks")
            .is_none()
    );
}

#[test]
fn a_selector_that_does_not_match_its_template() {
    let kind = strategy("apps", "ReplicaSet");
    let mut set = replica_set(&json!({"app": "b"}), &json!({"matchLabels": {"app": "a"}}));
    assert_eq!(
        create(kind, &mut set),
        "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`"
    );
    let mut set = replica_set(&json!({"app": "b"}), &Value::Null);
    set["spec"].as_object_mut().expect("an object").remove("selector");
    assert_eq!(
        create(kind, &mut set),
        "spec.selector: Required value; spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` \
         does not match template `labels`"
    );
}

#[test]
fn selectors_are_immutable() {
    for (group, kind) in [("apps", "ReplicaSet"), ("apps", "Deployment")] {
        let kind = strategy(group, kind);
        let labels = json!({"a": "b", "c": "d"});
        let mut old = replica_set(&labels, &json!({"matchLabels": {"a": "b"}}));
        assert_eq!(create(kind, &mut old), "");
        let mut new = old.clone();
        new["spec"]["selector"] = json!({"matchLabels": {"c": "d"}});
        assert_eq!(
            update(kind, &mut new, &old),
            "spec.selector: Invalid value: {\"matchLabels\":{\"c\":\"d\"}}: field is immutable"
        );
        assert_eq!(new["metadata"]["generation"], 2);
    }
}

#[test]
fn names_and_labels() {
    let kind = strategy("", "ConfigMap");
    let mut map = json!({"metadata": {
        "name": "Bad_Name", "namespace": "default",
        "labels": {"a b": "x", "ok": "-"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}],
        "finalizers": ["mine"],
    }});
    assert_eq!(
        create(kind, &mut map),
        "metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case \
         alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
         'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'); metadata.labels: Invalid value: \"a \
         b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'); metadata.labels: Invalid value: \"-\": a valid label must be \
         an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
         alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
         '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?'); metadata.ownerReferences.uid: Invalid value: \"\": must \
         not be empty; metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name \
         nor is it fully qualified"
    );
}

#[test]
fn immutable_metadata() {
    let kind = strategy("", "ConfigMap");
    let old = json!({"metadata": {
        "name": "a", "namespace": "default", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["a/b"],
    }});
    let mut new = old.clone();
    new["metadata"]["creationTimestamp"] = json!("2026-01-01T01:00:00+01:00");
    assert_eq!(update(kind, &mut new, &old), "", "one time in two zones");
    new["metadata"]["uid"] = json!("2");
    new["metadata"]["finalizers"] = json!(["a/b", "c/d"]);
    assert_eq!(
        update(kind, &mut new, &old),
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
         finalizers []string{\"c/d\"}; metadata.uid: Invalid value: \"2\": field is immutable"
    );
}

#[test]
fn services() {
    let kind = strategy("", "Service");
    let service = |spec: Value| json!({"metadata": {"name": "s", "namespace": "default"}, "spec": spec});
    let mut exposed = service(json!({
        "type": "NodePort", "selector": {"service": "go-demo-2"}, "ports": [{"port": 28017, "nodePort": 30001}],
    }));
    assert_eq!(create(kind, &mut exposed), "");
    assert_eq!(
        exposed["spec"],
        json!({
            "type": "NodePort", "selector": {"service": "go-demo-2"},
            "ports": [{"port": 28017, "nodePort": 30001, "targetPort": 28017, "protocol": "TCP"}],
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
        })
    );
    assert_eq!(exposed["status"], json!({"loadBalancer": {}}));

    let cases = [
        (json!({}), "spec.ports: Required value"),
        (
            json!({"ports": [{"port": 80}, {"port": 80, "name": "b"}]}),
            "spec.ports[0].name: Required value; spec.ports[1]: Duplicate value: \
             {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            json!({"type": "Nodeport", "ports": [{"port": 80}]}),
            "spec.type: Unsupported value: \"Nodeport\": supported values: \"ClusterIP\", \"ExternalName\", \
             \"LoadBalancer\", \"NodePort\"; spec.internalTrafficPolicy: Required value",
        ),
        (
            json!({"ports": [{"port": 80}], "clusterIP": "10.0.0.300", "clusterIPs": ["10.0.0.300"]}),
            "spec.clusterIPs[0]: Invalid value: \"10.0.0.300\": must be a valid IP address, (e.g. 10.9.8.7 or \
             2001:db8::ffff)",
        ),
        (
            json!({"type": "ExternalName"}),
            "spec.externalName: Required value",
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(create(kind, &mut service(spec)), expected);
    }
}

#[test]
fn the_address_of_a_service_stays() {
    let kind = strategy("", "Service");
    let old = json!({
        "metadata": {"name": "s", "namespace": "default"},
        "spec": {
            "type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP", "nodePort": 30001}],
        },
    });
    let mut moved = old.clone();
    moved["spec"]["clusterIP"] = json!("10.96.0.6");
    moved["spec"]["clusterIPs"] = json!(["10.96.0.6"]);
    assert_eq!(
        update(kind, &mut moved, &old),
        "spec.clusterIPs[0]: Invalid value: [\"10.96.0.6\"]: may not change once set"
    );
    let mut inside = old.clone();
    inside["spec"]["type"] = json!("ClusterIP");
    assert_eq!(update(kind, &mut inside, &old), "");
    assert!(inside["spec"]["ports"][0].get("nodePort").is_none());
    assert!(inside["spec"].get("externalTrafficPolicy").is_none());
}

#[test]
fn deployments() {
    let kind = strategy("apps", "Deployment");
    let mut deployment = replica_set(&json!({"a": "b"}), &json!({"matchLabels": {"a": "b"}}));
    deployment["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}});
    assert_eq!(create(kind, &mut deployment), "");
    assert_eq!(
        deployment["spec"]["strategy"]["rollingUpdate"],
        json!({"maxSurge": 0, "maxUnavailable": "25%"})
    );
    let mut annotated = deployment.clone();
    annotated["metadata"]["annotations"] = json!({"x": "y"});
    assert_eq!(update(kind, &mut annotated, &deployment), "");
    assert_eq!(
        annotated["metadata"]["generation"], 2,
        "annotations go to the replica sets"
    );

    let mut stuck = deployment.clone();
    stuck["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] = json!(0);
    stuck["spec"]["progressDeadlineSeconds"] = json!(0);
    assert_eq!(
        update(kind, &mut stuck, &deployment),
        "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0; \
         spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds"
    );
}

#[test]
fn strategies_agree_with_the_resource_list() {
    for resource in crate::resources::all()
        .iter()
        .filter(|resource| resource.is_stored())
    {
        let stored = resource.storage_gvk();
        let kind = strategy(&stored.group, &stored.kind);
        let name = format!("{}/{}", stored.group, stored.kind);
        let facts = kind.facts();
        assert_eq!(facts.namespaced, resource.namespaced, "scope of {name}");
        assert_eq!(
            facts.status,
            resource.subresource("status").is_some(),
            "status of {name}"
        );
    }
}

#[test]
fn every_row_has_as_many_cells_as_columns() {
    let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    for resource in crate::resources::all() {
        let stored = resource.storage_gvk();
        let table = strategy(&stored.group, &stored.kind).table();
        for object in [json!({}), json!({"metadata": {}, "spec": {}, "status": {}})] {
            let cells = (table.cells)(&object, now);
            assert_eq!(cells.len(), table.columns.len(), "{}", stored.kind);
        }
    }
}

#[test]
fn nothing_is_too_empty_to_look_at() {
    for resource in crate::resources::all() {
        let stored = resource.storage_gvk();
        let kind = strategy(&stored.group, &stored.kind);
        let mut object = json!({});
        create(kind, &mut object);
        let mut update = json!({"metadata": {}});
        kind.prepare_for_update(&mut update, &object);
        kind.validate_update(&update, &object);
        kind.prepare_for_status_update(&mut update, &object);
        kind.validate_status_update(&update, &object);
        kind.selectable_fields(&object);
        kind.warnings(&object, None);
    }
}
