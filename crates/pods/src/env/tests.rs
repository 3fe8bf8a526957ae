use super::*;
use k8s_openapi::serde_json::{Value, from_value, json};

struct Given {
    config_maps: BTreeMap<String, Arc<ConfigMap>>,
    secrets: BTreeMap<String, Arc<Secret>>,
    services: Vec<Arc<Service>>,
}

fn given() -> Given {
    let map: ConfigMap = from_value(json!({"data": {"color": "red", "size": "xl"}})).expect("a ConfigMap");
    let secret: Secret = from_value(json!({"data": {"password": "aHVudGVyMg=="}})).expect("a Secret");
    let service: Service = from_value(json!({"metadata": {"name": "db", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.3.3", "ports": [{"port": 27017}]}}))
    .expect("a Service");
    Given {
        config_maps: BTreeMap::from([("conf".to_owned(), Arc::new(map))]),
        secrets: BTreeMap::from([("cred".to_owned(), Arc::new(secret))]),
        services: vec![Arc::new(service)],
    }
}

fn environment(container: Value) -> Result<Vec<String>, String> {
    let given = given();
    let pod: Pod = from_value(
        json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": {"containers": [container]}}),
    )
    .expect("a pod");
    let pod_ips = ["10.244.0.7".parse().expect("ip")];
    let sources = Sources {
        config_maps: &given.config_maps,
        secrets: &given.secrets,
        services: &given.services,
        downward_api: downward_api::Context {
            pod_ips: &pod_ips,
            host_ips: &[],
            allocatable: &BTreeMap::new(),
        },
    };
    let container = &pod.spec.as_ref().expect("spec").containers[0];
    let all = variables(&pod, container, &sources)?;
    Ok(all
        .into_iter()
        .filter(|(name, _)| !name.starts_with("DB_PORT"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect())
}

#[test]
fn every_source_in_declared_order() {
    let env = environment(json!({
        "name": "c",
        "envFrom": [{"prefix": "CONF_", "configMapRef": {"name": "conf"}}, {"secretRef": {"name": "cred"}},
                    {"configMapRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "Z", "value": "last letter"},
            {"name": "URL", "value": "mongodb://$(DB_SERVICE_HOST)/$(CONF_color)?$(LATER)&$$(Z)"},
            {"name": "LATER", "value": "x"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "cred", "key": "password"}}},
            {"name": "NO", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "none", "optional": true}}},
            {"name": "CONF_size", "value": "replaced"}
        ]
    }));
    assert_eq!(
        env.expect("resolves"),
        [
            "CONF_color=red",
            "CONF_size=replaced",
            "password=hunter2",
            "Z=last letter",
            "URL=mongodb://10.96.3.3/red?$(LATER)&$(Z)",
            "LATER=x",
            "IP=10.244.0.7",
            "PW=hunter2",
            "DB_SERVICE_HOST=10.96.3.3",
            "DB_SERVICE_PORT=27017",
        ]
    );
}

#[test]
fn what_is_missing_is_named() {
    let of = |source: Value| environment(json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]}));
    assert_eq!(
        of(json!({"configMapKeyRef": {"name": "none", "key": "k"}})),
        Err("configmap \"none\" not found".into())
    );
    assert_eq!(
        of(json!({"secretKeyRef": {"name": "cred", "key": "k"}})),
        Err("couldn't find key k in Secret shop/cred".into())
    );
    assert_eq!(
        environment(json!({"name": "c", "envFrom": [{"secretRef": {"name": "none"}}]})),
        Err("secret \"none\" not found".into())
    );
}

#[test]
fn commands_expand() {
    let variables = [("A".to_owned(), "1".to_owned())];
    let command = ["echo".to_owned(), "$(A) $(B) $$(A)".to_owned()];
    assert_eq!(expand_command(&command, &variables), ["echo", "1 $(B) $(A)"]);
}

#[test]
fn references_are_found() {
    let container: Container = from_value(json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
        "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}}]}))
    .expect("a container");
    let (maps, secrets) = references(&container);
    assert_eq!(maps.into_iter().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(secrets.into_iter().collect::<Vec<_>>(), ["b", "d"]);
}
