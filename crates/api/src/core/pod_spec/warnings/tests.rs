use crate::strategy::strategy;
use serde_json::{Value, json};

fn pod(spec: &Value) -> Vec<String> {
    let pod = json!({"metadata": {"name": "a"}, "spec": spec});
    strategy("", "Pod").warnings(&pod, None)
}

#[test]
fn a_plain_pod_needs_no_advice() {
    let spec = json!({
        "containers": [
            {"name": "a", "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]},
            {"name": "b", "ports": [{"name": "dns", "containerPort": 80, "protocol": "UDP"}],
             "env": [{"name": "PATH", "value": "/bin"}, {"name": "PATH", "value": "$(PATH):/usr/bin"}]},
        ],
        "terminationGracePeriodSeconds": 5,
    });
    assert_eq!(pod(&spec), Vec::<String>::new());
}

#[test]
fn names_that_are_no_host_names() {
    let name = json!({"metadata": {"name": "a.b", "generation": 1}, "spec": {}});
    let reason =
        "which can result in surprising behavior; a DNS label is recommended: [must not contain dots]";
    assert_eq!(
        strategy("", "Pod").warnings(&name, None),
        [format!(
            "metadata.name: this is used in the Pod's hostname, {reason}"
        )]
    );
    for (group, kind) in [
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("", "ReplicationController"),
        ("batch", "Job"),
        ("batch", "CronJob"),
    ] {
        let kind = strategy(group, kind);
        assert_eq!(
            kind.warnings(&name, None),
            [format!(
                "metadata.name: this is used in Pod names and hostnames, {reason}"
            )]
        );
        assert_eq!(kind.warnings(&name, Some(&name)), Vec::<String>::new());
    }
}

#[test]
fn templates_are_warned_of_where_they_are() {
    let spec = json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}});
    let template = json!({"spec": spec});
    let message =
        r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#;
    for (group, kind, path, object) in [
        ("", "Pod", "", json!({"spec": spec})),
        ("", "PodTemplate", "template.", json!({"template": template})),
        (
            "",
            "ReplicationController",
            "spec.template.",
            json!({"spec": {"template": template}}),
        ),
        (
            "apps",
            "DaemonSet",
            "spec.template.",
            json!({"spec": {"template": template}}),
        ),
        (
            "apps",
            "StatefulSet",
            "spec.template.",
            json!({"spec": {"template": template}}),
        ),
        (
            "batch",
            "Job",
            "spec.template.",
            json!({"spec": {"template": template}}),
        ),
        (
            "batch",
            "CronJob",
            "spec.jobTemplate.spec.template.",
            json!({"spec": {"jobTemplate": {"spec": {"template": template}}}}),
        ),
    ] {
        let mut object = object;
        object["metadata"] = json!({"name": "a", "generation": 2});
        let expected = [format!("{path}{message}")];
        let strategy = strategy(group, kind);
        assert_eq!(strategy.warnings(&object, None), expected, "{kind}");
        assert_eq!(
            strategy.warnings(&object, Some(&object)),
            Vec::<String>::new(),
            "{kind}"
        );
        let mut old = object.clone();
        old["metadata"]["generation"] = 1.into();
        if kind != "Pod" {
            assert_eq!(strategy.warnings(&object, Some(&old)), expected, "{kind}");
        }
    }
}

#[test]
fn ports() {
    let port = |name: &str, host_port: u16, host_ip: &str| json!({"name": name, "containerPort": 80, "protocol": "TCP", "hostPort": host_port, "hostIP": host_ip});
    let spec = json!({"containers": [
        {"name": "a", "ports": [port("a", 8080, ""), port("b", 0, "1.2.3.4")]},
        {"name": "b", "ports": [port("a", 8080, "1.2.3.4"), {"containerPort": 80, "protocol": "TCP", "hostPort": 8080}]},
    ]});
    assert_eq!(
        pod(&spec),
        [
            "spec.containers[0].ports[1]: hostIP set without hostPort: \
             {Name:b HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.2.3.4}",
            "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[0]: dangerously ambiguous port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[1]",
            "spec.containers[1].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[1]: overlapping port definition with spec.containers[0].ports[1]",
            "spec.containers[1].ports[1]: dangerously ambiguous port definition with spec.containers[1].ports[0]",
            "spec.containers[1].ports[0]: duplicate port name \"a\" with spec.containers[0].ports[0], services and \
             probes that select ports by name will use spec.containers[0].ports[0]",
        ]
    );
}

#[test]
fn containers_and_lists() {
    let spec = json!({
        "containers": [{
            "name": "a",
            "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A)"}],
            "resources": {"limits": {"memory": "100m"}},
        }],
        "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}],
        "hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}, {"ip": "2001:DB8::1"}],
        "topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}],
        "terminationGracePeriodSeconds": -1,
    });
    assert_eq!(
        pod(&spec),
        [
            "spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since \
             v1.17; use \"topology.kubernetes.io/zone\" instead",
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            "spec.hostAliases[1].ip: duplicate ip \"1.2.3.4\"",
            "spec.imagePullSecrets[1].name: duplicate name \"s\"",
            "spec.imagePullSecrets[2].name: invalid empty name \"\"",
            "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
            "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            "spec.hostAliases[2].ip: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format \
             (\"2001:db8::1\")",
        ]
    );
}

#[test]
fn volumes() {
    let spec = json!({"volumes": [
        {"name": "a", "gitRepo": {}},
        {"name": "b", "configMap": {"name": "c", "items": [{"path": "x/"}, {"path": "x/y"}, {"path": "xy"}]}},
        {"name": "d", "projected": {"sources": [
            {"secret": {"name": "s", "items": [{"path": "token"}]}},
            {"serviceAccountToken": {"path": "token"}},
            {},
        ]}},
        {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1500m"}}}}}},
    ]});
    assert_eq!(
        pod(&spec),
        [
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            "spec.volumes[3].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: fractional byte value \
             \"1500m\" is invalid, must be an integer",
            "volume \"b\" (ConfigMap \"c\"): overlapping paths: \"x/y\" with \"x\"",
            "volume \"d\" (Projected) has no sources provided",
            "volume \"d\" (Projected): overlapping paths: \"token\" (ServiceAccountToken) with \"token\" (Secret \"s\")",
        ]
    );
}
