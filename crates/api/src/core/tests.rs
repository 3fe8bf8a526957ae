//! Golden cases of the smaller kinds of the core group; pods have their own.

use crate::strategy::strategy;
use crate::tests::{create, named, row, texts, update, wrong};
use serde_json::{Value, json};

#[test]
fn namespaces() {
    let kind = strategy("", "Namespace");
    let mut namespace = named(kind, "dev", json!({}));
    assert_eq!(create(kind, &mut namespace), "");
    assert_eq!(
        namespace["metadata"]["labels"],
        json!({"kubernetes.io/metadata.name": "dev"})
    );
    assert_eq!(namespace["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(namespace["status"], json!({"phase": "Active"}));
    assert_eq!(row(kind, &namespace), json!(["dev", "Active", "5m"]));

    let mut emptied = namespace.clone();
    emptied["spec"] = json!({});
    assert_eq!(update(kind, &mut emptied, &namespace), "");
    assert_eq!(
        emptied["spec"], namespace["spec"],
        "only `finalize` removes finalizers"
    );
    emptied["spec"] = json!({});
    assert!(kind.prepare_for_subresource_update("finalize", &mut emptied, &namespace));
    assert!(emptied["spec"].get("finalizers").is_none());
    assert_eq!(
        create(kind, &mut named(kind, "a.b", json!({}))),
        "metadata.name: Invalid value: \"a.b\": must not contain dots"
    );
}

#[test]
fn config_maps_and_secrets() {
    let kind = strategy("", "ConfigMap");
    let mut map = named(
        kind,
        "a",
        json!({"data": {"k": "v"}, "binaryData": {"b": "AA=="}, "immutable": true}),
    );
    assert_eq!(create(kind, &mut map), "");
    assert_eq!(row(kind, &map), json!(["a", 2, "5m"]));
    let mut changed = map.clone();
    changed["data"]["k"] = json!("w");
    changed["immutable"] = json!(false);
    assert_eq!(
        update(kind, &mut changed, &map),
        "immutable: Forbidden: field is immutable when `immutable` is set; data: Forbidden: field is immutable when \
         `immutable` is set"
    );
    assert_eq!(
        wrong(kind, json!({"data": {"a/b": ""}})),
        "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or \
         '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
    );

    let kind = strategy("", "Secret");
    let mut secret = named(
        kind,
        "s",
        json!({"stringData": {"password": "incognito"}, "data": {"user": "am9l"}}),
    );
    assert_eq!(create(kind, &mut secret), "");
    assert_eq!(secret["type"], "Opaque");
    assert_eq!(
        secret["data"],
        json!({"user": "am9l", "password": "aW5jb2duaXRv"})
    );
    assert!(secret.get("stringData").is_none());
    assert_eq!(row(kind, &secret), json!(["s", "Opaque", 2, "5m"]));
    let mut tls = secret.clone();
    tls["type"] = json!("kubernetes.io/tls");
    assert_eq!(
        update(kind, &mut tls, &secret),
        "type: Invalid value: \"kubernetes.io/tls\": field is immutable; data[tls.crt]: Required value; \
         data[tls.key]: Required value"
    );
}

#[test]
fn nodes() {
    let kind = strategy("", "Node");
    let mut node = named(
        kind,
        "n1",
        json!({
            "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}], "unschedulable": true},
            "status": {
                "capacity": {"cpu": "2", "memory": "4096Mi"},
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.2"}],
                "nodeInfo": {
                    "kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.18.0",
                    "containerRuntimeVersion": "coracle://0.1",
                },
            },
        }),
    );
    node["metadata"]["labels"] =
        json!({"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""});
    assert_eq!(create(kind, &mut node), "");
    assert_eq!(
        node["status"]["allocatable"],
        json!({"cpu": "2", "memory": "4Gi"})
    );
    assert_eq!(
        row(kind, &node),
        json!([
            "n1",
            "Ready,SchedulingDisabled",
            "control-plane,worker",
            "5m",
            "v1.36.0",
            "10.0.0.2",
            "<none>",
            "Debian",
            "6.18.0",
            "coracle://0.1"
        ])
    );
    node["status"]["conditions"][0]["status"] = json!("Unknown");
    assert_eq!(row(kind, &node)[1], "NotReady,SchedulingDisabled");
    let taint = json!({"key": "a", "effect": "NoSchedule"});
    let errors = wrong(
        kind,
        json!({"spec": {"taints": [taint, taint, {"key": "b", "effect": "Never"}]}}),
    );
    assert_eq!(
        errors,
        "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}: taints must be unique by key \
         and effect pair; metadata.taints[2].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \
         \"NoSchedule\", \"PreferNoSchedule\""
    );
}

#[test]
fn rows_of_services() {
    let kind = strategy("", "Service");
    let of = |spec: Value, status: Value| {
        let service = named(kind, "s", json!({"spec": spec, "status": status}));
        row(kind, &service)
    };
    let ports = json!([
        {"port": 80, "protocol": "TCP", "nodePort": 30001}, {"port": 53, "protocol": "UDP"},
    ]);
    assert_eq!(
        of(
            json!({"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": ports,
                "selector": {"b": "2", "a": "1"}}),
            json!({})
        ),
        json!([
            "s",
            "NodePort",
            "10.96.0.5",
            "<none>",
            "80:30001/TCP,53/UDP",
            "5m",
            "a=1,b=2"
        ])
    );
    assert_eq!(
        of(
            json!({"type": "ExternalName", "externalName": "example.com"}),
            json!({})
        ),
        json!([
            "s",
            "ExternalName",
            "<none>",
            "example.com",
            "<none>",
            "5m",
            "<none>"
        ])
    );
    let balanced = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": ports});
    assert_eq!(of(balanced.clone(), json!({}))[3], "<pending>");
    assert_eq!(
        of(
            balanced,
            json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}})
        )[3],
        "1.2.3.4"
    );
    let headless =
        json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "externalIPs": ["1.2.3.4"]});
    assert_eq!(
        of(headless, json!({})),
        json!(["s", "ClusterIP", "None", "1.2.3.4", "<none>", "5m", "<none>"])
    );
}

#[test]
fn what_services_are_warned_of() {
    let kind = strategy("", "Service");
    let warnings = |spec: Value| kind.warnings(&named(kind, "s", json!({"spec": spec})), None);
    let plain = json!({"type": "ClusterIP", "sessionAffinity": "None", "clusterIPs": ["10.96.0.5"]});
    assert_eq!(warnings(plain), Vec::<String>::new());
    assert_eq!(
        warnings(json!({
            "type": "ClusterIP", "sessionAffinity": "ClientIP", "clusterIPs": ["None"], "externalIPs": ["1.2.3.4"],
            "externalName": "a.b", "trafficDistribution": "PreferClose",
        })),
        [
            "spec.externalIPs is ignored for headless services",
            "spec.SessionAffinity is ignored for headless services",
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ]
    );
    let balanced = |how: &str| {
        let mut service = named(
            kind,
            "s",
            json!({"spec": {"type": "ClusterIP", "sessionAffinity": "None"}}),
        );
        service["metadata"]["annotations"] = json!({"coracle.dev/balancing": how});
        kind.warnings(&service, None)
    };
    assert_eq!(balanced("never-queue"), Vec::<String>::new());
    assert_eq!(
        balanced("fastest"),
        [
            "metadata.annotations[coracle.dev/balancing]: \"fastest\" is not known, endpoints are chosen at random; \
             known are random, round-robin, source-hash, destination-hash, least-connections, shortest-expected-delay, \
             never-queue"
        ]
    );
}

#[test]
fn events() {
    let kind = strategy("", "Event");
    let mut event = named(
        kind,
        "p.1",
        json!({
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default", "fieldPath": "spec.containers{db}"},
            "type": "Normal", "reason": "Pulled", "message": "Container image already present\n", "count": 3,
            "firstTimestamp": "2026-01-01T00:01:00Z", "lastTimestamp": "2026-01-01T00:04:30Z",
            "source": {"component": "kubelet", "host": "n1"},
        }),
    );
    assert_eq!(create(kind, &mut event), "");
    assert_eq!(
        row(kind, &event),
        json!([
            "30s",
            "Normal",
            "Pulled",
            "pod/p",
            "spec.containers{db}",
            "kubelet, n1",
            "Container image already present",
            "4m",
            3,
            "p.1"
        ])
    );
    event["involvedObject"]["namespace"] = json!("other");
    assert_eq!(
        texts(&kind.validate(&event)),
        "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"
    );
}

#[test]
fn limit_ranges() {
    let kind = strategy("", "LimitRange");
    let limits = json!([{
        "type": "Container",
        "default": {"memory": "50Mi", "cpu": "0.2"}, "defaultRequest": {"memory": "30Mi", "cpu": "0.05"},
        "max": {"memory": "80Mi", "cpu": "0.5"}, "min": {"memory": "10Mi", "cpu": "0.01"},
    }]);
    let mut range = named(kind, "limit-range", json!({"spec": {"limits": limits}}));
    assert_eq!(create(kind, &mut range), "");
    assert_eq!(range["spec"]["limits"][0]["default"]["cpu"], "200m");
    assert_eq!(row(kind, &range), json!(["limit-range", "2026-01-01T00:00:00Z"]));
    let mut only_max = named(
        kind,
        "m",
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
    );
    assert_eq!(create(kind, &mut only_max), "");
    let limit = &only_max["spec"]["limits"][0];
    assert_eq!(
        (&limit["default"], &limit["defaultRequest"]),
        (&json!({"cpu": "1"}), &json!({"cpu": "1"}))
    );
    assert_eq!(
        wrong(
            kind,
            json!({"spec": {"limits": [{"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "default": {"cpu": "1"}}]}})
        ),
        "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'; spec.limits[0].min[cpu]: \
         Invalid value: \"2\": min value 2 is greater than max value 1"
    );
}

#[test]
fn resource_quotas() {
    let kind = strategy("", "ResourceQuota");
    let hard = json!({"requests.cpu": "0.8", "limits.cpu": "1", "pods": "10"});
    let mut quota = named(kind, "dev", json!({"spec": {"hard": hard}}));
    assert_eq!(create(kind, &mut quota), "");
    assert_eq!(quota["spec"]["hard"]["requests.cpu"], "800m");
    quota["status"] = json!({
        "hard": {"requests.cpu": "800m", "limits.cpu": "1", "pods": "10"}, "used": {"requests.cpu": "0", "pods": "3"},
    });
    assert_eq!(
        row(kind, &quota),
        json!(["dev", "pods: 3/10, requests.cpu: 0/800m", "limits.cpu: 0/1", "5m"])
    );
    assert_eq!(
        kind.warnings(
            &named(
                kind,
                "a",
                json!({"spec": {"hard": {"cpu": "2", "limits.cpu": "1500m"}}})
            ),
            None
        ),
        ["ResourceQuota cpu (2) should be less than limits.cpu (1500m)"]
    );
}

#[test]
fn replication_controllers() {
    let kind = strategy("", "ReplicationController");
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "nginx"}]},
    });
    let mut controller = named(kind, "web", json!({"spec": {"template": template}}));
    assert_eq!(create(kind, &mut controller), "");
    assert_eq!(controller["spec"]["selector"], json!({"app": "web"}));
    assert_eq!(controller["metadata"]["labels"], json!({"app": "web"}));
    assert_eq!(
        row(kind, &controller),
        json!(["web", 1, 0, 0, "5m", "web", "nginx", "app=web"])
    );
    assert_eq!(
        wrong(
            kind,
            json!({"spec": {"selector": {"app": "db"}, "replicas": -1, "template": template}})
        ),
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0; spec.template.metadata.labels: Invalid \
         value: {\"app\":\"web\"}: `selector` does not match template `labels`"
    );
}
