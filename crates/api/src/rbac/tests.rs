//! Golden cases of roles and bindings.

use crate::strategy::strategy;
use crate::tests::{create, named, row, update, wrong};
use serde_json::json;

const GROUP: &str = "rbac.authorization.k8s.io";

#[test]
fn roles() {
    let kind = strategy(GROUP, "Role");
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
    let mut role = named(kind, "system:reader", json!({"rules": rules}));
    assert_eq!(create(kind, &mut role), "");
    assert_eq!(row(kind, &role), json!(["system:reader", "2026-01-01T00:00:00Z"]));
    assert_eq!(
        wrong(
            kind,
            json!({"rules": [
                {"resources": ["pods"], "apiGroups": [""]},
                {"verbs": ["get"], "resources": ["pods"]},
                {"verbs": ["get"], "apiGroups": [""]},
                {"verbs": ["get"], "nonResourceURLs": ["/healthz"]},
            ]})
        ),
        "rules[0].verbs: Required value: verbs must contain at least one value; rules[1].apiGroups: Required value: \
         resource rules must supply at least one api group; rules[2].resources: Required value: resource rules must \
         supply at least one resource; rules[3].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules \
         cannot apply to non-resource URLs"
    );
    let cluster = strategy(GROUP, "ClusterRole");
    let mut role = named(
        cluster,
        "probe",
        json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]}),
    );
    assert_eq!(create(cluster, &mut role), "");
    assert_eq!(
        create(cluster, &mut named(cluster, "a/b", json!({"rules": []}))),
        "metadata.name: Invalid value: \"a/b\": may not contain '/'"
    );
}

#[test]
fn bindings() {
    let kind = strategy(GROUP, "RoleBinding");
    let mut binding = named(
        kind,
        "devs",
        json!({
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [
                {"kind": "User", "name": "jdoe"},
                {"kind": "Group", "name": "devs"},
                {"kind": "ServiceAccount", "name": "ci", "namespace": "build"},
            ],
        }),
    );
    assert_eq!(create(kind, &mut binding), "");
    assert_eq!(binding["roleRef"]["apiGroup"], GROUP);
    assert_eq!(binding["subjects"][0]["apiGroup"], GROUP);
    assert!(
        binding["subjects"][2]
            .get("apiGroup")
            .is_none_or(|group| group == "")
    );
    assert_eq!(
        row(kind, &binding),
        json!(["devs", "ClusterRole/view", "5m", "jdoe", "devs", "build/ci"])
    );
    let mut other = binding.clone();
    other["roleRef"]["name"] = json!("admin");
    assert_eq!(
        update(kind, &mut other, &binding),
        "roleRef: Invalid value: \
         {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"admin\"}: cannot change \
         roleRef"
    );
    let cluster = strategy(GROUP, "ClusterRoleBinding");
    assert_eq!(
        wrong(
            cluster,
            json!({
                "roleRef": {"kind": "Role", "name": "x"},
                "subjects": [{"kind": "ServiceAccount", "name": "ci"}, {"kind": "Robot", "name": "r"}],
            })
        ),
        "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"; subjects[0].namespace: \
         Required value; subjects[1].kind: Unsupported value: \"Robot\": supported values: \"Group\", \
         \"ServiceAccount\", \"User\""
    );
}
