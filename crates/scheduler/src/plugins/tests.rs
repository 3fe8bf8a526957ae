//! One cluster, one pod, one question each.

use crate::pod_info::PodInfo;
use crate::schedule::{Decision, schedule};
use crate::snapshot::Snapshot;
use coracle_meta::Selector;
use coracle_reconcile::Key;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"}},
    })
}

fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"namespace": "shop", "name": name, "uid": name, "labels": {"app": "db"}}, "spec": spec})
}

fn asks(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

fn info(pod: Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
}

fn cluster(nodes: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.set_namespace(
        "shop",
        Some(BTreeMap::from([("team".to_owned(), "a".to_owned())])),
    );
    for node in nodes {
        snapshot.put_node(Arc::new(serde_json::from_value(node.clone()).unwrap()));
    }
    snapshot
}

fn decide(snapshot: &Snapshot, pod: Value) -> String {
    match schedule(&info(pod), snapshot, 0) {
        Decision::Bind(node) => node,
        Decision::Unschedulable(unfit) => unfit.to_string(),
    }
}

#[test]
fn no_nodes() {
    assert_eq!(
        decide(&cluster(&[]), pod("p", json!({}))),
        "no nodes available to schedule pods"
    );
}

#[test]
fn resources() {
    let mut snapshot = cluster(&[node("n1"), node("n2")]);
    snapshot.put_pod(info(pod("big", asks("1500m"))), "n1");
    assert_eq!(decide(&snapshot, pod("p", asks("1"))), "n2");
    snapshot.put_pod(info(pod("big2", asks("1500m"))), "n2");
    assert_eq!(
        decide(&snapshot, pod("p", asks("1"))),
        "0/2 nodes are available: 2 Insufficient cpu."
    );
    let mut full = node("n1");
    full["status"]["allocatable"]["pods"] = json!("1");
    let mut snapshot = cluster(&[full]);
    snapshot.put_pod(info(pod("one", json!({}))), "n1");
    assert_eq!(
        decide(&snapshot, pod("p", asks("4"))),
        "0/1 nodes are available: 1 Insufficient cpu, 1 Too many pods."
    );
    let gpu = json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]});
    assert_eq!(
        decide(&cluster(&[node("n1")]), pod("p", gpu)),
        "0/1 nodes are available: 1 Insufficient example.com/gpu."
    );
}

#[test]
fn the_emptier_node_is_better() {
    let mut snapshot = cluster(&[node("n1"), node("n2")]);
    snapshot.put_pod(info(pod("a", json!({}))), "n1");
    assert_eq!(
        decide(&snapshot, pod("p", json!({}))),
        "n2",
        "also without requests"
    );
}

#[test]
fn ties_rotate() {
    let snapshot = cluster(&[node("n1"), node("n2")]);
    let subject = info(pod("p", json!({})));
    let chosen: Vec<_> = (0..4).map(|tie| schedule(&subject, &snapshot, tie)).collect();
    assert_eq!(chosen[0], chosen[2]);
    assert_ne!(chosen[0], chosen[1]);
}

#[test]
fn taints_and_cordons() {
    let mut tainted = node("n1");
    tainted["spec"] = json!({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]});
    let mut cordoned = node("n2");
    cordoned["spec"] = json!({"unschedulable": true});
    let snapshot = cluster(&[tainted, cordoned]);
    assert_eq!(
        decide(&snapshot, pod("p", json!({}))),
        "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."
    );
    let tolerant = json!({"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]});
    assert_eq!(decide(&snapshot, pod("p", tolerant)), "n1");
    let tolerant =
        json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]});
    assert_eq!(decide(&snapshot, pod("p", tolerant)), "n2");
}

#[test]
fn mild_taints_only_count_against_a_node() {
    let mut mild = node("n1");
    mild["spec"] = json!({"taints": [{"key": "spot", "effect": "PreferNoSchedule"}]});
    assert_eq!(decide(&cluster(&[mild.clone()]), pod("p", json!({}))), "n1");
    let mut snapshot = cluster(&[mild, node("n2")]);
    snapshot.put_pod(info(pod("a", asks("500m"))), "n2");
    assert_eq!(decide(&snapshot, pod("p", json!({}))), "n2");
}

#[test]
fn node_names_and_affinity() {
    let mut ssd = node("n2");
    ssd["metadata"]["labels"]["disk"] = json!("ssd");
    let snapshot = cluster(&[node("n1"), ssd]);
    assert_eq!(
        decide(&snapshot, pod("p", json!({"nodeSelector": {"disk": "ssd"}}))),
        "n2"
    );
    assert_eq!(
        decide(&snapshot, pod("p", json!({"nodeSelector": {"disk": "tape"}}))),
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
    );
    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 50, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]}}});
    assert_eq!(decide(&snapshot, pod("p", preferred)), "n2");
}

#[test]
fn host_ports() {
    let port = |ip: &str, protocol: &str| {
        json!({"containers": [{"name": "c", "ports": [
            {"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol}]}]})
    };
    let mut snapshot = cluster(&[node("n1")]);
    snapshot.put_pod(info(pod("a", port("", "TCP"))), "n1");
    assert_eq!(
        decide(&snapshot, pod("p", port("10.0.0.1", "TCP"))),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    );
    assert_eq!(decide(&snapshot, pod("p", port("", "UDP"))), "n1");
    snapshot.remove_pod(&Key::new("shop", "a"));
    assert_eq!(decide(&snapshot, pod("p", port("", "TCP"))), "n1");
}

#[test]
fn hard_spreading() {
    let constraint = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "db"}}}]});
    let mut snapshot = cluster(&[node("n1"), node("n2")]);
    snapshot.put_pod(info(pod("a", json!({}))), "n1");
    assert_eq!(decide(&snapshot, pod("p", constraint.clone())), "n2");
    let mut cordoned = node("n2");
    cordoned["spec"] = json!({"unschedulable": true});
    snapshot.put_node(Arc::new(serde_json::from_value(cordoned).unwrap()));
    assert_eq!(
        decide(&snapshot, pod("p", constraint)),
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, \
         1 node(s) were unschedulable."
    );
}

#[test]
fn kin_are_spread_without_being_asked() {
    let mut snapshot = cluster(&[node("n1"), node("n2")]);
    // n1 has one of the pod's kin, n2 has more strangers.
    snapshot.put_pod(info(pod("a", asks("100m"))), "n1");
    let mut stranger = pod("b", asks("200m"));
    stranger["metadata"]["labels"] = json!({"app": "web"});
    snapshot.put_pod(info(stranger), "n2");
    assert_eq!(decide(&snapshot, pod("p", json!({}))), "n1", "n1 has more room");
    let selector = Selector::from_set([("app", "db")]);
    snapshot.set_selector("Service", &Key::new("shop", "db"), Some(selector));
    assert_eq!(decide(&snapshot, pod("p", json!({}))), "n2");
}

fn affinity(kind: &str, selector: Value) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}]}}})
}

#[test]
fn near_and_far() {
    let mut snapshot = cluster(&[node("n1"), node("n2")]);
    snapshot.put_pod(info(pod("a", json!({}))), "n1");
    let db = json!({"matchLabels": {"app": "db"}});
    assert_eq!(
        decide(&snapshot, pod("p", affinity("podAffinity", db.clone()))),
        "n1"
    );
    assert_eq!(
        decide(&snapshot, pod("p", affinity("podAntiAffinity", db.clone()))),
        "n2"
    );
    let cache = json!({"matchLabels": {"app": "cache"}});
    assert_eq!(
        decide(&snapshot, pod("p", affinity("podAffinity", cache))),
        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules."
    );
    // The pods that are there have a say too.
    snapshot.put_pod(info(pod("b", affinity("podAntiAffinity", db.clone()))), "n2");
    snapshot.put_pod(info(pod("c", affinity("podAntiAffinity", db))), "n1");
    assert_eq!(
        decide(&snapshot, pod("p", json!({}))),
        "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules."
    );
}

#[test]
fn the_first_of_a_group_needs_no_company() {
    let snapshot = cluster(&[node("n1")]);
    let db = json!({"matchLabels": {"app": "db"}});
    assert_eq!(decide(&snapshot, pod("p", affinity("podAffinity", db))), "n1");
}

#[test]
fn namespaces_are_selected_by_label() {
    let mut snapshot = cluster(&[node("n1")]);
    snapshot.put_pod(info(pod("a", json!({}))), "n1");
    let mut guest = pod(
        "p",
        affinity("podAffinity", json!({"matchLabels": {"app": "db"}})),
    );
    guest["metadata"]["namespace"] = json!("other");
    guest["metadata"]["labels"] = json!({});
    assert!(decide(&snapshot, guest.clone()).contains("didn't match pod affinity rules"));
    let term = "/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0";
    guest.pointer_mut(term).unwrap()["namespaceSelector"] = json!({"matchLabels": {"team": "a"}});
    assert_eq!(decide(&snapshot, guest), "n1");
}

#[test]
fn big_images_draw() {
    let mut holder = node("n2");
    holder["status"]["images"] = json!([{"names": ["mongo:3.3"], "sizeBytes": 2_000_000_000}]);
    let snapshot = cluster(&[node("n1"), holder]);
    let wants = json!({"containers": [{"name": "c", "image": "mongo:3.3"}]});
    assert_eq!(decide(&snapshot, pod("p", wants)), "n2");
}
