//! What people do: Deployments and Services come, change and go, and now and then a Pod is deleted by hand.

use crate::api::{Api, id};
use coracle_meta::Status;
use coracle_meta::object::ObjectExt;
use coracle_reconcile::{Action, Cache, Key, Kind, Precondition};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::IPAddress;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// Where everything is.
pub const NAMESPACES: [&str; 2] = ["a", "b"];
/// The names of Deployments and of what they run.
const APPS: [&str; 3] = ["web", "api", "db"];
/// The names of Services.
pub const SERVICES: [&str; 5] = ["one", "two", "three", "four", "five"];

/// Does something by chance; says what.
pub fn act(api: &mut Api, random: &mut StdRng) -> String {
    let namespace = NAMESPACES[random.random_range(0..NAMESPACES.len())];
    match random.random_range(0..100) {
        0..30 => deployment(api, namespace, random),
        30..80 => service(api, namespace, random),
        80..92 => delete_any::<Pod>(api, Some(30), random),
        92..96 => delete_any::<Pod>(api, Some(0), random),
        96..98 => delete_any::<IPAddress>(api, None, random),
        _ => delete_any::<Deployment>(api, None, random),
    }
}

fn said(what: String, result: Result<Value, Status>) -> String {
    match result {
        Ok(object) => format!("user: {what}: revision {}", object.resource_version()),
        Err(status) => format!("user: {what}: {}", status.message),
    }
}

fn create<K: Kind>(api: &mut Api, namespace: &str, object: Value) -> String {
    let what = format!("create {} {}", K::KIND, object.name());
    let result = api.execute(&Action::Create {
        resource: Cache::resource_of::<K>(),
        namespace: namespace.to_owned(),
        object,
    });
    said(what, result)
}

fn update<K: Kind>(api: &mut Api, object: Value, what: &str) -> String {
    let key = Key::new(object.namespace(), object.name());
    let what = format!("update {} {key}: {what}", K::KIND);
    let result = api.execute(&Action::Update {
        resource: Cache::resource_of::<K>(),
        key,
        subresource: "",
        object,
    });
    said(what, result)
}

fn delete<K: Kind>(api: &mut Api, key: Key, grace_seconds: Option<i64>) -> String {
    let what = format!("delete {} {key}, grace {grace_seconds:?}", K::KIND);
    let result = api.execute(&Action::Delete {
        resource: Cache::resource_of::<K>(),
        key,
        precondition: Precondition::default(),
        propagation: None,
        grace_seconds,
    });
    said(what, result)
}

fn delete_any<K: Kind>(api: &mut Api, grace_seconds: Option<i64>, random: &mut StdRng) -> String {
    let all: Vec<Key> = api
        .list::<K>()
        .map(|object| Key::new(object.namespace(), object.name()))
        .collect();
    if all.is_empty() {
        return String::new();
    }
    let key = all[random.random_range(0..all.len())].clone();
    delete::<K>(api, key, grace_seconds)
}

fn deployment(api: &mut Api, namespace: &str, random: &mut StdRng) -> String {
    let app = APPS[random.random_range(0..APPS.len())];
    let Some(existing) = api.get::<Deployment>(namespace, app).cloned() else {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app, "namespace": namespace},
            "spec": {
                "replicas": random.random_range(0..4),
                "revisionHistoryLimit": 2,
                "progressDeadlineSeconds": 600,
                "selector": {"matchLabels": {"app": app}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
                "template": {
                    "metadata": {"labels": {"app": app}},
                    "spec": {
                        "restartPolicy": "Always",
                        "containers": [{
                            "name": "main", "image": "app:1",
                            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                        }],
                    },
                },
            },
        });
        return create::<Deployment>(api, namespace, object);
    };
    let mut object = existing;
    match random.random_range(0..3) {
        0 => {
            let replicas = random.random_range(0..5);
            object["spec"]["replicas"] = json!(replicas);
            update::<Deployment>(api, object, &format!("{replicas} replicas"))
        }
        1 => {
            // The named port has another number in the new Pods.
            let port = 8080 + random.random_range(0..3);
            let container = &mut object["spec"]["template"]["spec"]["containers"][0];
            container["ports"][0]["containerPort"] = json!(port);
            container["image"] = json!(format!("app:{}", random.random_range(0..100)));
            update::<Deployment>(api, object, &format!("new Pods on port {port}"))
        }
        _ => delete::<Deployment>(api, Key::new(namespace, app), None),
    }
}

fn spec(random: &mut StdRng) -> Value {
    let app = APPS[random.random_range(0..APPS.len())];
    let target = if random.random_bool(0.5) {
        json!("http")
    } else {
        json!(8080)
    };
    let mut spec = json!({
        "type": "ClusterIP",
        "selector": {"app": app},
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ports": [{"name": "main", "port": 80, "targetPort": target, "protocol": "TCP"}],
    });
    match random.random_range(0..10) {
        0..2 => spec["clusterIP"] = json!("None"),
        2..5 => spec["type"] = json!("NodePort"),
        5..7 => spec["type"] = json!("LoadBalancer"),
        _ => {}
    }
    if spec["type"] != "ClusterIP" {
        spec["externalTrafficPolicy"] = json!("Cluster");
    }
    if random.random_bool(0.3) {
        spec["sessionAffinity"] = json!("ClientIP");
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10}});
    }
    if random.random_bool(0.2) {
        spec["internalTrafficPolicy"] = json!("Local");
    }
    if random.random_bool(0.3) {
        spec["ports"][0]["port"] = json!(80 + random.random_range(0..3));
    }
    if random.random_bool(0.2) {
        let other = json!({"name": "other", "port": 90, "targetPort": 9090, "protocol": "TCP"});
        spec["ports"].as_array_mut().expect("made above").push(other);
    }
    spec
}

fn service(api: &mut Api, namespace: &str, random: &mut StdRng) -> String {
    let name = SERVICES[random.random_range(0..SERVICES.len())];
    let mut wanted = spec(random);
    let Some(existing) = api.get::<Service>(namespace, name).cloned() else {
        // Wishes clash now and then, and must be refused then.
        if wanted["clusterIP"].is_null() && random.random_bool(0.4) {
            wanted["clusterIP"] = json!(format!("10.96.0.{}", random.random_range(1..8)));
        }
        if wanted["type"] == "NodePort" && random.random_bool(0.4) {
            wanted["ports"][0]["nodePort"] = json!(30000 + random.random_range(0..4));
        }
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": wanted, "status": {"loadBalancer": {}},
        });
        return create::<Service>(api, namespace, object);
    };
    if random.random_bool(0.3) {
        return delete::<Service>(api, Key::new(namespace, name), None);
    }
    // A Service that has an address keeps it, and one that has none gets none.
    let mut object = existing;
    let old = object["spec"].take();
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if old[field].is_null() {
            wanted.as_object_mut().expect("made above").remove(field);
        } else {
            wanted[field] = old[field].clone();
        }
    }
    if old["clusterIP"] == "None" {
        wanted["type"] = json!("ClusterIP");
    }
    let what = format!("type {}, selector {}", wanted["type"], wanted["selector"]);
    object["spec"] = wanted;
    update::<Service>(api, object, &what)
}

/// The namespaces, once.
pub fn begin(api: &mut Api) {
    for namespace in NAMESPACES {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        create::<k8s_openapi::api::core::v1::Namespace>(api, "", object);
    }
}

/// A node as it registers itself.
pub fn add_node(api: &mut Api, name: &str, address: std::net::IpAddr) {
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address.to_string()}],
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    create::<k8s_openapi::api::core::v1::Node>(api, "", object);
}

/// A node that is lost and taken out of the cluster.
pub fn remove_node(api: &mut Api, name: &str) {
    let (resource, key) = id::<k8s_openapi::api::core::v1::Node>("", name);
    let delete = Action::Delete {
        resource,
        key,
        precondition: Precondition::default(),
        propagation: None,
        grace_seconds: None,
    };
    // It may be out already.
    let _ = api.execute(&delete);
}
