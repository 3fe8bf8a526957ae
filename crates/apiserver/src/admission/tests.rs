use super::*;
use crate::fake_reader::FakeReader;
use crate::plugin::{Decision, Reader};
use crate::request::{Attributes, UserInfo};
use coracle_meta::GroupVersionKind;
use serde_json::json;

struct Ask<'a> {
    operation: Operation,
    user: UserInfo,
    group: &'a str,
    resource: &'a str,
    object: Value,
    old: Option<Value>,
}

fn create<'a>(resource: &'a str, object: Value) -> Ask<'a> {
    Ask {
        operation: Operation::Create,
        user: UserInfo::new("u", &[]),
        group: "",
        resource,
        object,
        old: None,
    }
}

/// Runs one plugin as the registry does; the object as it was left, or the refusal.
fn run(plugin: &dyn Admission, ask: Ask, reader: &FakeReader) -> Result<Value, Status> {
    let (resource, subresource) = ask.resource.split_once('/').unwrap_or((ask.resource, ""));
    let subject = if ask.object.is_null() {
        ask.old.clone().unwrap_or_default()
    } else {
        ask.object.clone()
    };
    let attributes = Attributes {
        user: ask.user,
        api_group: ask.group.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: subject.namespace().to_owned(),
        name: if ask.operation == Operation::Create {
            String::new()
        } else {
            subject.name().to_owned()
        },
        is_resource_request: true,
        ..Attributes::default()
    };
    let mut object = ask.object;
    let mut request = AdmissionRequest {
        operation: ask.operation,
        attributes: &attributes,
        kind: &GroupVersionKind::new(ask.group, "v1", ""),
        object: Some(&mut object),
        old: ask.old.as_ref(),
        dry_run: false,
        options: &Value::Null,
        warnings: Vec::new(),
    };
    plugin.admit(&mut request, reader)?;
    plugin.validate(&request, reader)?;
    Ok(object)
}

fn message(result: Result<Value, Status>) -> String {
    result.unwrap_err().message
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"namespace": "d", "name": "p"}, "spec": spec})
}

#[test]
fn nothing_new_in_namespaces_that_end() {
    let reader = FakeReader::default();
    let namespace = |name: &str, phase: &str| json!({"metadata": {"name": name}, "status": {"phase": phase}});
    reader.put("", "namespaces", namespace("ending", "Terminating"));
    reader.put("", "namespaces", namespace("d", "Active"));
    let config = |namespace: &str| json!({"metadata": {"namespace": namespace, "name": "c"}});
    run(&NamespaceLifecycle, create("configmaps", config("d")), &reader).unwrap();
    assert_eq!(
        message(run(
            &NamespaceLifecycle,
            create("configmaps", config("gone")),
            &reader
        )),
        r#"namespaces "gone" not found"#
    );
    let status = run(
        &NamespaceLifecycle,
        create("configmaps", config("ending")),
        &reader,
    )
    .unwrap_err();
    assert_eq!(
        status.message,
        r#"configmaps "c" is forbidden: unable to create new content in namespace ending because it is being terminated"#
    );
    assert_eq!(status.details.unwrap().causes[0].reason, "NamespaceTerminating");
    let write = |operation, resource, name: &str| Ask {
        operation,
        old: Some(if resource == "namespaces" {
            namespace(name, "Active")
        } else {
            config("ending")
        }),
        ..create(resource, Value::Null)
    };
    run(
        &NamespaceLifecycle,
        write(Operation::Update, "configmaps", "c"),
        &reader,
    )
    .unwrap();
    run(
        &NamespaceLifecycle,
        write(Operation::Delete, "namespaces", "d"),
        &reader,
    )
    .unwrap();
    assert_eq!(
        message(run(
            &NamespaceLifecycle,
            write(Operation::Delete, "namespaces", "default"),
            &reader
        )),
        r#"namespaces "default" is forbidden: this namespace may not be deleted"#
    );
}

#[test]
fn pods_get_an_account_and_its_token() {
    let reader = FakeReader::default();
    reader.put(
        "",
        "serviceaccounts",
        json!({"metadata": {"namespace": "d", "name": "default"}, "imagePullSecrets": [{"name": "s"}]}),
    );
    let spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [
        {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]});
    let admitted = run(&ServiceAccount, create("pods", pod(spec)), &reader).unwrap();
    let spec = &admitted["spec"];
    assert_eq!(
        (&spec["serviceAccountName"], &spec["serviceAccount"]),
        (&json!("default"), &json!("default"))
    );
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "s"}]));
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == "kube-api-access-".len() + 5);
    let sources = &spec["volumes"][0]["projected"]["sources"];
    assert_eq!(sources[0]["serviceAccountToken"]["expirationSeconds"], 3607);
    assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
    let mounts = |i: usize| spec["containers"][i]["volumeMounts"].as_array().unwrap();
    assert_eq!(
        mounts(0)[0],
        json!({"name": volume, "readOnly": true, "mountPath": MOUNT})
    );
    assert_eq!(mounts(1).len(), 1);

    // Written again with its volume, a pod keeps it.
    let again = run(&ServiceAccount, create("pods", admitted.clone()), &reader).unwrap();
    assert_eq!(again["spec"]["volumes"], admitted["spec"]["volumes"]);
}

const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[test]
fn accounts_that_are_missing_or_want_no_token() {
    let reader = FakeReader::default();
    let named = pod(json!({"serviceAccountName": "x", "containers": [{}]}));
    assert_eq!(
        message(run(&ServiceAccount, create("pods", named), &reader)),
        r#"pods "p" is forbidden: error looking up service account d/x: serviceaccount "x" not found"#
    );
    // The default account of a new namespace is on its way.
    let early = run(
        &ServiceAccount,
        create("pods", pod(json!({"containers": [{}]}))),
        &reader,
    )
    .unwrap();
    assert!(early["spec"]["volumes"].is_array());
    let without = pod(json!({"automountServiceAccountToken": false, "containers": [{}]}));
    let without = run(&ServiceAccount, create("pods", without), &reader).unwrap();
    assert_eq!(without["spec"]["volumes"], Value::Null);
    reader.put(
        "",
        "serviceaccounts",
        json!({"metadata": {"namespace": "d", "name": "n"}, "automountServiceAccountToken": false}),
    );
    let by_account = pod(json!({"serviceAccountName": "n", "containers": [{}]}));
    let by_account = run(&ServiceAccount, create("pods", by_account), &reader).unwrap();
    assert_eq!(by_account["spec"]["volumes"], Value::Null);
}

#[test]
fn priorities() {
    let reader = FakeReader::default();
    let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": "Never"});
    let ask = |spec: Value, reader: &FakeReader| run(&Priority, create("pods", pod(spec)), reader);
    let plain = ask(json!({}), &reader).unwrap();
    assert_eq!(
        plain["spec"],
        json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"})
    );
    assert_eq!(
        message(ask(json!({"priorityClassName": "high"}), &reader)),
        r#"pods "p" is forbidden: no PriorityClass with name high was found"#
    );
    reader.put("scheduling.k8s.io", "priorityclasses", class("high", 1000, false));
    let high = ask(json!({"priorityClassName": "high"}), &reader).unwrap();
    assert_eq!(
        (&high["spec"]["priority"], &high["spec"]["preemptionPolicy"]),
        (&json!(1000), &json!("Never"))
    );
    assert!(message(ask(json!({"priorityClassName": "high", "priority": 7}), &reader)).contains(
        "the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name"
    ));
    reader.put("scheduling.k8s.io", "priorityclasses", class("usual", 5, true));
    assert_eq!(
        ask(json!({}), &reader).unwrap()["spec"]["priorityClassName"],
        "usual"
    );
    let second = Ask {
        group: "scheduling.k8s.io",
        ..create("priorityclasses", class("second", 6, true))
    };
    assert!(
        message(run(&Priority, second, &reader))
            .ends_with("PriorityClass usual is already marked as default. Only one default can exist")
    );

    let updated = Ask {
        operation: Operation::Update,
        old: Some(high),
        ..create("pods", pod(json!({"a": 1})))
    };
    assert_eq!(
        run(&Priority, updated, &reader).unwrap()["spec"]["priority"],
        1000
    );
}

#[test]
fn tolerations_and_taints() {
    let reader = FakeReader::default();
    let keys = |spec: Value| -> Vec<String> {
        let admitted = run(&DefaultTolerationSeconds, create("pods", pod(spec)), &reader).unwrap();
        items(&admitted, &["spec", "tolerations"])
            .map(|t| t["key"].to_string())
            .collect()
    };
    assert_eq!(
        keys(json!({})),
        [
            r#""node.kubernetes.io/not-ready""#,
            r#""node.kubernetes.io/unreachable""#
        ]
    );
    let own = json!({"tolerations": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}, {"key": "x"}]});
    assert_eq!(keys(own).len(), 3);
    assert_eq!(keys(json!({"tolerations": [{"operator": "Exists"}]})).len(), 1);

    let node = run(
        &TaintNodesByCondition,
        create("nodes", json!({"metadata": {"name": "n"}})),
        &reader,
    )
    .unwrap();
    assert_eq!(
        node["spec"]["taints"],
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    );
    let again = run(&TaintNodesByCondition, create("nodes", node.clone()), &reader).unwrap();
    assert_eq!(again, node);
}

#[test]
fn default_classes() {
    let reader = FakeReader::default();
    let class = |name: &str, key: &str, at: &str| json!({"metadata": {"name": name, "creationTimestamp": at, "annotations": {key: "true"}}});
    let storage = "storageclass.kubernetes.io/is-default-class";
    reader.put(
        "storage.k8s.io",
        "storageclasses",
        class("old", storage, "2026-01-01T00:00:00Z"),
    );
    reader.put(
        "storage.k8s.io",
        "storageclasses",
        class("new", storage, "2026-01-02T00:00:00Z"),
    );
    let claim = |spec: Value| {
        run(
            &DefaultStorageClass,
            create("persistentvolumeclaims", pod(spec)),
            &reader,
        )
        .unwrap()
    };
    assert_eq!(claim(json!({}))["spec"]["storageClassName"], "new");
    assert_eq!(
        claim(json!({"storageClassName": ""}))["spec"]["storageClassName"],
        ""
    );
    reader.put(
        "networking.k8s.io",
        "ingressclasses",
        class("web", "ingressclass.kubernetes.io/is-default-class", ""),
    );
    let ask = |object| Ask {
        group: "networking.k8s.io",
        ..create("ingresses", object)
    };
    let ingress = run(&DefaultIngressClass, ask(pod(json!({}))), &reader).unwrap();
    assert_eq!(ingress["spec"]["ingressClassName"], "web");
}

#[test]
fn limit_ranges() {
    let reader = FakeReader::default();
    reader.put(
        "",
        "limitranges",
        json!({"metadata": {"namespace": "d", "name": "l"}, "spec": {"limits": [
            {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
             "min": {"cpu": "50m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "10"}},
            {"type": "Pod", "max": {"memory": "1Gi"}},
            {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}},
        ]}}),
    );
    let ask = |containers: Value| {
        run(
            &LimitRanger,
            create("pods", pod(json!({"containers": containers}))),
            &reader,
        )
    };
    let memory = json!({"limits": {"memory": "512Mi"}, "requests": {"memory": "512Mi"}});
    let defaulted = ask(json!([{"name": "a", "resources": memory}])).unwrap();
    assert_eq!(
        defaulted["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}})
    );
    assert_eq!(
        defaulted["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container a; cpu limit for container a"
    );
    let with = |requests: &str, limits: &str| {
        ask(
            json!([{"resources": {"requests": {"cpu": requests, "memory": "1Mi"}, "limits": {"cpu": limits, "memory": "1Mi"}}}]),
        )
    };
    assert!(
        message(with("10m", "100m")).ends_with("minimum cpu usage per Container is 50m, but request is 10m")
    );
    assert!(message(with("500m", "2")).ends_with("maximum cpu usage per Container is 1, but limit is 2"));
    assert!(
        message(with("50m", "600m"))
            .ends_with("cpu max limit to request ratio per Container is 10, but provided ratio is 12.000000")
    );
    let two = json!([{"resources": memory}, {"resources": {"limits": {"memory": "600Mi"}, "requests": {"memory": "1Mi"}}}]);
    assert!(message(ask(two)).ends_with("maximum memory usage per Pod is 1Gi, but limit is 1112Mi"));
    let claim = |storage: &str| {
        let spec = json!({"resources": {"requests": {"storage": storage}}});
        run(&LimitRanger, create("persistentvolumeclaims", pod(spec)), &reader)
    };
    claim("1500Mi").unwrap();
    assert!(
        message(claim("3Gi"))
            .ends_with("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi")
    );
    assert!(
        message(claim("1Mi"))
            .ends_with("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi")
    );
}

fn as_node(ask: Ask) -> Ask {
    Ask {
        user: UserInfo::new("system:node:n", &["system:nodes"]),
        ..ask
    }
}

#[test]
fn nodes_change_their_own_only() {
    let reader = FakeReader::default();
    reader.put("", "nodes", json!({"metadata": {"name": "n", "uid": "u"}}));
    let on = |node: &str, labels: Value| json!({"metadata": {"namespace": "d", "name": "p", "labels": labels}, "spec": {"nodeName": node}});
    let update = |resource, object: Value, old: Value| {
        as_node(Ask {
            operation: Operation::Update,
            old: Some(old),
            ..create(resource, object)
        })
    };
    let delete = |old: Value| {
        as_node(Ask {
            operation: Operation::Delete,
            old: Some(old),
            ..create("pods", Value::Null)
        })
    };
    let refused = |ask: Ask| message(run(&NodeRestriction, ask, &reader));
    let fine = |ask: Ask| run(&NodeRestriction, ask, &reader).unwrap();

    fine(update("pods/status", on("n", json!({})), on("n", json!({}))));
    assert!(
        refused(update("pods/status", on("o", json!({})), on("o", json!({}))))
            .contains("can only update pod status for pods with spec.nodeName set to itself")
    );
    assert!(
        refused(update(
            "pods/status",
            on("n", json!({"a": "b"})),
            on("n", json!({}))
        ))
        .contains("cannot update labels through pod status")
    );
    fine(delete(on("n", json!({}))));
    assert!(
        refused(delete(on("o", json!({})))).contains("can only delete pods with spec.nodeName set to itself")
    );
    assert!(refused(as_node(create("pods", on("n", json!({}))))).contains("can only create mirror pods"));
    let mut mirror = on("n", json!({}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    mirror["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true}]);
    fine(as_node(create("pods", mirror)));

    let node = |name: &str, labels: Value, taints: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
    fine(as_node(create(
        "nodes",
        node("n", json!({"kubernetes.io/hostname": "n", "own": "x"}), json!([])),
    )));
    assert!(
        refused(as_node(create("nodes", node("o", json!({}), json!([])))))
            .contains(r#"node "n" is not allowed to modify node "o""#)
    );
    assert!(
        refused(as_node(create(
            "nodes",
            node(
                "n",
                json!({"node-role.kubernetes.io/control-plane": ""}),
                json!([])
            )
        )))
        .contains("is not allowed to set the following labels: node-role.kubernetes.io/control-plane")
    );
    let plain = || node("n", json!({}), json!([]));
    assert!(
        refused(update(
            "nodes",
            node("n", json!({}), json!([{"key": "x"}])),
            plain()
        ))
        .contains("is not allowed to modify taints")
    );
    assert!(
        refused(update(
            "nodes",
            node("n", json!({"x.node-restriction.kubernetes.io/a": ""}), json!([])),
            plain()
        ))
        .contains("is not allowed to modify labels")
    );

    let lease = |name: &str| {
        as_node(Ask {
            group: "coordination.k8s.io",
            ..create(
                "leases",
                json!({"metadata": {"namespace": "kube-node-lease", "name": name}}),
            )
        })
    };
    fine(lease("n"));
    assert!(
        refused(lease("o")).contains("can only access node lease with the same name as the requesting node")
    );
    // Others are not restricted.
    run(
        &NodeRestriction,
        create("nodes", node("o", json!({}), json!([]))),
        &reader,
    )
    .unwrap();
}

#[test]
fn nodes_ask_for_tokens_of_their_pods() {
    let reader = FakeReader::default();
    let token = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}});
    let put = |name: &str, node: &str| {
        let pod = json!({"metadata": {"namespace": "d", "name": name, "uid": name}, "spec": {"nodeName": node, "volumes": [token]}});
        reader.put("", "pods", pod);
    };
    put("mine", "n");
    put("other", "o");
    let attributes = Attributes {
        user: UserInfo::new("system:node:n", &["system:nodes"]),
        resource: "serviceaccounts".to_owned(),
        namespace: "d".to_owned(),
        name: "default".to_owned(),
        ..Attributes::default()
    };
    let ask = |pod: &str, audiences: Value| {
        let request = json!({"spec": {"audiences": audiences, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": pod}}});
        node_restriction::check_token_request(&attributes, &request, &reader).map_err(|status| status.message)
    };
    ask("mine", json!([])).unwrap();
    assert!(
        ask("other", json!([]))
            .unwrap_err()
            .contains("bound to a pod scheduled on a different node")
    );
    assert!(
        ask("mine", json!(["vault"]))
            .unwrap_err()
            .contains(r#"audience "vault" not found in pod spec volume"#)
    );
    let unbound = node_restriction::check_token_request(&attributes, &json!({}), &reader).unwrap_err();
    assert!(
        unbound
            .message
            .contains("node requested token not bound to a pod")
    );
}

#[test]
fn owners_are_for_those_who_may_delete() {
    struct May(&'static str);
    impl Authorizer for May {
        fn authorize(&self, a: &Attributes, _reader: &dyn Reader) -> Decision {
            let asked = format!("{} {}/{} {}", a.verb, a.resource, a.subresource, a.name);
            if self.0.split(',').any(|allowed| allowed == asked) {
                Decision::Allow
            } else {
                Decision::NoOpinion(String::new())
            }
        }
    }
    let owned = |block: bool| {
        json!({"metadata": {"namespace": "d", "name": "p", "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1", "blockOwnerDeletion": block}]}})
    };
    let ask = |may: &'static str, object: Value, old: Option<Value>| {
        let plugin = OwnerReferencesPermissionEnforcement::new(vec![Arc::new(May(may))]);
        let operation = if old.is_some() {
            Operation::Update
        } else {
            Operation::Create
        };
        run(
            &plugin,
            Ask {
                operation,
                old,
                ..create("pods", object)
            },
            &FakeReader::default(),
        )
    };
    let bare = pod(json!({}));
    ask("", owned(false), None).unwrap();
    ask("delete pods/ p", owned(false), Some(bare.clone())).unwrap();
    assert!(
        message(ask("", owned(false), Some(bare.clone())))
            .contains("cannot set an ownerRef on a resource you can't delete")
    );
    assert!(
        message(ask("delete pods/ p", owned(true), Some(bare.clone())))
            .contains("cannot set blockOwnerDeletion")
    );
    ask(
        "delete pods/ p,update replicasets/finalizers r",
        owned(true),
        Some(bare),
    )
    .unwrap();
}
