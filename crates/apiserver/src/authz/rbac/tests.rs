use super::*;
use crate::fake_reader::FakeReader;
use crate::plugin::{Admission, AdmissionRequest, Operation};
use crate::request::UserInfo;
use coracle_meta::GroupVersionKind;
use serde_json::{Value, json};

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    PolicyRule {
        verbs: own(verbs),
        api_groups: own(groups),
        resources: own(resources),
        resource_names: own(names),
        ..PolicyRule::default()
    }
}

fn request(verb: &str, group: &str, resource: &str, name: &str) -> Attributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        user: UserInfo::new("u", &["g"]),
        verb: verb.to_owned(),
        api_group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        name: name.to_owned(),
        is_resource_request: true,
        ..Attributes::default()
    }
}

#[test]
fn rules_allow() {
    let table = [
        (
            rule(&["get"], &[""], &["pods"], &[]),
            ("get", "", "pods", "x"),
            true,
        ),
        (
            rule(&["get"], &[""], &["pods"], &[]),
            ("list", "", "pods", ""),
            false,
        ),
        (
            rule(&["*"], &["*"], &["*"], &[]),
            ("patch", "apps", "deployments/scale", "x"),
            true,
        ),
        (
            rule(&["get"], &["apps"], &["pods"], &[]),
            ("get", "", "pods", "x"),
            false,
        ),
        (
            rule(&["get"], &[""], &["pods"], &[]),
            ("get", "", "pods/log", "x"),
            false,
        ),
        (
            rule(&["get"], &[""], &["pods/log"], &[]),
            ("get", "", "pods/log", "x"),
            true,
        ),
        (
            rule(&["get"], &[""], &["pods/log"], &[]),
            ("get", "", "pods", "x"),
            false,
        ),
        (
            rule(&["update"], &["*"], &["*/scale"], &[]),
            ("update", "apps", "deployments/scale", "x"),
            true,
        ),
        (
            rule(&["update"], &["*"], &["*/scale"], &[]),
            ("update", "apps", "deployments/status", "x"),
            false,
        ),
        (
            rule(&["get"], &[""], &["pods"], &["x", "y"]),
            ("get", "", "pods", "y"),
            true,
        ),
        (
            rule(&["get"], &[""], &["pods"], &["x", "y"]),
            ("get", "", "pods", "z"),
            false,
        ),
        (
            rule(&["create"], &[""], &["pods"], &["x"]),
            ("create", "", "pods", ""),
            false,
        ),
    ];
    for (rule, (verb, group, resource, name), expected) in table {
        let asked = request(verb, group, resource, name);
        assert_eq!(rule.allows(&asked), expected, "{rule:?} {verb} {resource} {name}");
    }
    let paths = PolicyRule {
        verbs: vec!["get".to_owned()],
        non_resource_urls: vec!["/healthz".to_owned(), "/openapi/*".to_owned()],
        ..PolicyRule::default()
    };
    for (path, expected) in [
        ("/healthz", true),
        ("/healthz/x", false),
        ("/openapi/v3", true),
        ("/open", false),
    ] {
        let asked = Attributes {
            verb: "get".to_owned(),
            path: path.to_owned(),
            ..Attributes::default()
        };
        assert_eq!(paths.allows(&asked), expected, "{path}");
    }
}

#[test]
fn cover_is_atom_by_atom() {
    let owned = [
        rule(&["get", "list"], &[""], &["pods"], &[]),
        rule(&["update"], &["apps"], &["*/scale"], &[]),
        rule(&["get"], &[""], &["secrets"], &["a"]),
    ];
    for wanted in [
        rule(&["get"], &[""], &["pods"], &["x"]),
        rule(&["update"], &["apps"], &["deployments/scale"], &[]),
        rule(&["get"], &[""], &["secrets"], &["a"]),
    ] {
        assert_eq!(uncovered(&owned, std::slice::from_ref(&wanted)), [], "{wanted:?}");
    }
    let missing = uncovered(
        &owned,
        &[rule(
            &["get", "watch", "delete"],
            &[""],
            &["pods", "secrets"],
            &[],
        )],
    );
    let described: Vec<String> = compact(missing).iter().map(PolicyRule::describe).collect();
    assert_eq!(
        described,
        [
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch" "delete"]}"#,
            r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get" "watch" "delete"]}"#,
        ]
    );
    // A star is needed to cover a star.
    assert_eq!(uncovered(&owned, &[rule(&["*"], &[""], &["pods"], &[])]).len(), 1);
    assert_eq!(
        uncovered(&PolicyRule::everything(), &PolicyRule::everything()),
        []
    );
}

fn cluster() -> FakeReader {
    let reader = FakeReader::default();
    let put = |resource: &str, object: Value| reader.put(GROUP, resource, object);
    put(
        "clusterroles",
        json!({"metadata": {"name": "view"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
    );
    put(
        "roles",
        json!({"metadata": {"name": "edit", "namespace": "a"}, "rules": [{"verbs": ["update"], "apiGroups": [""], "resources": ["pods"]}]}),
    );
    put(
        "clusterrolebindings",
        json!({"metadata": {"name": "v"}, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "Group", "name": "g"}]}),
    );
    put(
        "rolebindings",
        json!({"metadata": {"name": "e", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "sa"}, {"kind": "User", "name": "u"}]}),
    );
    put(
        "rolebindings",
        json!({"metadata": {"name": "broken", "namespace": "b"}, "roleRef": {"kind": "Role", "name": "gone"},
        "subjects": [{"kind": "User", "name": "u"}]}),
    );
    reader
}

#[test]
fn bindings_apply_where_they_should() {
    let reader = cluster();
    let rbac = Rbac::default();
    let ask = |user: UserInfo, verb: &str, namespace: &str| {
        let asked = Attributes {
            user,
            namespace: namespace.to_owned(),
            ..request(verb, "", "pods", "x")
        };
        rbac.authorize(&asked, &reader)
    };
    let u = || UserInfo::new("u", &["g"]);
    let sa = |ns: &str| UserInfo::new(format!("system:serviceaccount:{ns}:sa"), &[]);
    assert_eq!(ask(u(), "get", "any"), Decision::Allow);
    assert_eq!(ask(u(), "get", ""), Decision::Allow);
    assert_eq!(ask(u(), "update", "a"), Decision::Allow);
    assert_eq!(ask(u(), "update", ""), Decision::NoOpinion(String::new()));
    assert_eq!(
        ask(u(), "update", "b"),
        Decision::NoOpinion(r#"RBAC: role.rbac.authorization.k8s.io "gone" not found"#.to_owned())
    );
    assert_eq!(ask(sa("a"), "update", "a"), Decision::Allow);
    assert_eq!(ask(sa("b"), "update", "a"), Decision::NoOpinion(String::new()));
    assert_eq!(
        ask(UserInfo::new("x", &[]), "get", "a"),
        Decision::NoOpinion(String::new())
    );
}

#[test]
fn a_change_is_in_force_for_the_next_request() {
    let reader = cluster();
    let rbac = Rbac::default();
    let asked = request("get", "", "pods", "x");
    assert_eq!(rbac.authorize(&asked, &reader), Decision::Allow);
    reader.remove(GROUP, "clusterrolebindings", "", "v");
    assert_ne!(rbac.authorize(&asked, &reader), Decision::Allow);
}

fn write(resource: &str, namespace: &str, object: Value, old: Option<&Value>) -> Result<(), String> {
    let reader = cluster();
    let rbac = Arc::new(Rbac::default());
    let check = EscalationCheck::new(rbac.clone(), vec![rbac]);
    let attributes = Attributes {
        namespace: namespace.to_owned(),
        ..request("create", GROUP, resource, "")
    };
    let mut object = object;
    let request = AdmissionRequest {
        operation: if old.is_some() {
            Operation::Update
        } else {
            Operation::Create
        },
        attributes: &attributes,
        kind: &GroupVersionKind::new(GROUP, "v1", ""),
        object: Some(&mut object),
        old,
        dry_run: false,
        options: &Value::Null,
        warnings: Vec::new(),
    };
    check.validate(&request, &reader).map_err(|status| status.message)
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    let role = |verb: &str| {
        json!({"metadata": {"name": "new", "namespace": "a"},
        "rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]})
    };
    assert_eq!(write("roles", "a", role("update"), None), Ok(()));
    assert_eq!(
        write("roles", "a", role("delete"), None),
        Err("roles.rbac.authorization.k8s.io \"new\" is forbidden: user \"u\" (groups=[\"g\"]) is attempting to grant \
             RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
            .to_owned())
    );
    let binding = |role: &str| {
        json!({"metadata": {"name": "new", "namespace": "a"},
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": role}, "subjects": []})
    };
    assert_eq!(write("rolebindings", "a", binding("edit"), None), Ok(()));
    assert!(
        write("rolebindings", "a", binding("gone"), None)
            .unwrap_err()
            .contains("not found")
    );
    let aggregated = json!({"metadata": {"name": "new"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
    assert!(
        write("clusterroles", "", aggregated, None)
            .unwrap_err()
            .ends_with("must have cluster-admin privileges to use the aggregationRule")
    );
    // Letting go of a finalizer is not granting.
    let mut old = role("delete");
    old["metadata"]["finalizers"] = json!(["x"]);
    assert_eq!(write("roles", "a", role("delete"), Some(&old)), Ok(()));
}
