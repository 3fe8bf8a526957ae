use super::*;
use crate::fake_reader::FakeReader;
use serde_json::json;

fn cluster() -> FakeReader {
    let reader = FakeReader::default();
    reader.put("", "pods", json!({
        "metadata": {"name": "p", "namespace": "d"},
        "spec": {
            "nodeName": "n", "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env-secret"}}}],
                            "envFrom": [{"configMapRef": {"name": "env-map"}}]}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "init-secret"}}]}],
            "volumes": [
                {"secret": {"secretName": "vol-secret"}}, {"configMap": {"name": "vol-map"}},
                {"projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}, {"secret": {"name": "projected"}}]}},
                {"persistentVolumeClaim": {"claimName": "claim"}}, {"name": "scratch", "ephemeral": {}},
            ],
        },
    }));
    reader.put("", "pods", json!({
        "metadata": {"name": "q", "namespace": "d"},
        "spec": {"nodeName": "other", "serviceAccountName": "sb", "volumes": [{"secret": {"secretName": "foreign"}}]},
    }));
    reader.put(
        "",
        "persistentvolumes",
        json!({
            "metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "d", "name": "claim"}},
        }),
    );
    reader
}

fn ask(verb: &str, resource: &str, name: &str, selector: &str) -> Decision {
    let (group, resource) = resource.rsplit_once(':').unwrap_or(("", resource));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let namespace = match resource {
        "nodes" | "persistentvolumes" | "csinodes" => "",
        "leases" => "kube-node-lease",
        _ => "d",
    };
    let attributes = Attributes {
        user: UserInfo::new("system:node:n", &["system:nodes", "system:authenticated"]),
        verb: verb.to_owned(),
        api_group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        field_selector: selector.to_owned(),
        is_resource_request: true,
        ..Attributes::default()
    };
    NodeAuthorizer::default().authorize(&attributes, &cluster())
}

#[test]
fn a_node_reads_what_its_pods_name() {
    for name in ["pull", "env-secret", "init-secret", "vol-secret", "projected"] {
        assert_eq!(ask("get", "secrets", name, ""), Decision::Allow, "{name}");
    }
    for name in ["env-map", "vol-map", "kube-root-ca.crt"] {
        assert_eq!(ask("watch", "configmaps", name, ""), Decision::Allow, "{name}");
    }
    for name in ["claim", "p-scratch"] {
        assert_eq!(
            ask("get", "persistentvolumeclaims", name, ""),
            Decision::Allow,
            "{name}"
        );
    }
    assert_eq!(ask("get", "persistentvolumes", "pv", ""), Decision::Allow);
    assert_eq!(
        ask("get", "secrets", "foreign", ""),
        no("no relationship found between node 'n' and this object")
    );
    assert_eq!(ask("list", "secrets", "", ""), no("No Object name found"));
    assert_eq!(
        ask("delete", "secrets", "pull", ""),
        no("can only read resources of this type")
    );
}

#[test]
fn tokens_only_for_accounts_of_its_pods() {
    assert_eq!(ask("create", "serviceaccounts/token", "sa", ""), Decision::Allow);
    assert_eq!(
        ask("create", "serviceaccounts/token", "sb", ""),
        no("no relationship found between node 'n' and this object")
    );
    assert_ne!(ask("create", "serviceaccounts", "sa", ""), Decision::Allow);
}

#[test]
fn its_own_node_lease_and_pods() {
    let lease = "coordination.k8s.io:leases";
    let table = [
        ("get", "nodes", "n", "", true),
        ("get", "nodes", "other", "", false),
        ("list", "nodes", "", "", false),
        ("patch", "nodes/status", "n", "", true),
        ("delete", "nodes", "n", "", false),
        ("create", lease, "", "", true),
        ("update", lease, "n", "", true),
        ("update", lease, "other", "", false),
        ("list", lease, "", "", false),
        ("watch", "pods", "", "spec.nodeName=n", true),
        ("watch", "pods", "", "spec.nodeName==n,status.phase!=Failed", true),
        ("watch", "pods", "", "spec.nodeName=other", false),
        ("list", "pods", "", "", false),
        ("get", "pods", "p", "", true),
        ("get", "pods", "q", "", false),
        ("update", "pods/status", "p", "", true),
        ("delete", "pods", "p", "", true),
        ("update", "pods", "p", "", false),
        ("create", "events", "", "", true),
        ("watch", "services", "", "", true),
        ("create", "services", "", "", false),
        ("create", "authentication.k8s.io:tokenreviews", "", "", true),
    ];
    for (verb, resource, name, selector, expected) in table {
        let got = ask(verb, resource, name, selector);
        assert_eq!(
            got == Decision::Allow,
            expected,
            "{verb} {resource} {name} {selector}: {got:?}"
        );
    }
}

#[test]
fn who_is_a_node() {
    assert_eq!(
        node_name(&UserInfo::new("system:node:n", &["system:nodes"])),
        Some("n")
    );
    assert_eq!(node_name(&UserInfo::new("system:node:n", &[])), None);
    assert_eq!(node_name(&UserInfo::new("n", &["system:nodes"])), None);
}
