//! What is said about connections that NetworkPolicies forbid.

use super::cluster::{self, POD_A, POD_B, denial, evidence, set_service};
use super::{TIMED_OUT, connected, golden};
use crate::denial::{Denial, Direction, PeerPod, PodName};
use crate::evidence::{Answer, Connected, Protocol, Via};
use crate::{Code, Evidence, diagnose};
use serde_json::{Value, json};
use std::time::Duration;

/// The cluster of the golden cases, whose client is a Pod that is kept from its endpoints.
fn kept_from(denials: Vec<Denial>) -> Evidence {
    let mut evidence = evidence();
    evidence.client.pod = Some("client".into());
    evidence.client.namespace = "shop".into();
    connected(&mut evidence, &TIMED_OUT);
    evidence.denials = Ok(denials);
    evidence
}

/// Both endpoints, forbidden by one policy.
fn by(direction: Direction, spec: &Value, admits: &[(bool, bool)]) -> Vec<Denial> {
    let policies = [("wall", spec.clone(), admits)];
    let to = |ip: &str| denial(&format!("{ip}:8080"), direction, &policies);
    vec![to(POD_A), to(POD_B)]
}

/// The message and the fix.
fn verdict(denials: Vec<Denial>) -> (String, String) {
    let verdict = diagnose(&kept_from(denials)).verdict;
    assert_eq!(verdict.code, Code::NetworkPolicyDenies, "{verdict:?}");
    (verdict.message, verdict.fix)
}

fn pods(labels: Value) -> Value {
    json!({"podSelector": {"matchLabels": labels}})
}

#[test]
fn ingress_and_egress() {
    let ingress = json!({"podSelector": {}, "ingress": [{"from": [pods(json!({"app": "api"}))],
        "ports": [{"port": 8080, "protocol": "TCP"}]}]});
    let ingress = kept_from(by(Direction::Ingress, &ingress, &[(false, true)]));
    golden("network-policy-ingress", &ingress, Code::NetworkPolicyDenies);

    // People write the Service's port; policies judge what is behind it.
    let egress = json!({"podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{"to": [pods(json!({"app": "web"}))], "ports": [{"port": 80}]}]});
    let egress = kept_from(by(Direction::Egress, &egress, &[(true, false)]));
    golden("network-policy-egress", &egress, Code::NetworkPolicyDenies);
}

#[test]
fn default_deny_of_both_ends_is_told_in_the_order_of_the_packet() {
    let nothing = json!({"podSelector": {}});
    let mut denials = by(Direction::Ingress, &nothing, &[]);
    denials.extend(by(Direction::Egress, &nothing, &[]));
    golden(
        "network-policy-default-deny",
        &kept_from(denials),
        Code::NetworkPolicyDenies,
    );
}

#[test]
fn one_of_two_endpoints() {
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": []});
    let mut evidence = kept_from(vec![by(Direction::Ingress, &spec, &[]).remove(0)]);
    for connection in evidence.connections.iter_mut().flatten() {
        if connection.via == Via::ClusterIp || connection.to.ip().to_string() == POD_B {
            connection.outcome = Connected::Accepted(Duration::from_micros(80));
        }
    }
    golden("network-policy-one", &evidence, Code::NetworkPolicyDenies);

    // The policy was about to go when it was read: the connection says more.
    connected(&mut evidence, &Connected::Accepted(Duration::from_micros(80)));
    assert_eq!(diagnose(&evidence).verdict.code, Code::Answers);
}

#[test]
fn what_is_admitted_and_what_is_not() {
    let cases = [
        (
            json!([{"from": [pods(json!({"app": "api", "role": "reader"}))]}]),
            (false, true),
            "admits Pods with app=api,role=reader to every port; Pod shop/client has app=client, no label role",
        ),
        (
            json!([{"from": [{"podSelector": {"matchExpressions": [
                {"key": "app", "operator": "In", "values": ["b", "a"]}]}}]}]),
            (false, true),
            "admits Pods with app in (a,b) to every port; Pod shop/client has app=client",
        ),
        (
            json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "research"}}}],
                "ports": [{"port": "http"}]}]),
            (false, true),
            "admits Pods of namespaces with team=research to port http/TCP; Pod shop/client is in namespace shop, which has team=sales",
        ),
        (
            json!([{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "api"}}}],
                "ports": [{"protocol": "UDP"}, {"port": 8000, "endPort": 8100}]}]),
            (false, true),
            "admits Pods with app=api of every namespace to every UDP port or ports 8000-8100/TCP; Pod shop/client has app=client",
        ),
        (
            json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.244.0.0/16"]}}]}]),
            (false, true),
            "admits 10.0.0.0/8 without 10.244.0.0/16 to every port; Pod shop/client has the address 10.244.0.9",
        ),
        (
            json!([{"ports": [{"port": 9090}]}]),
            (true, false),
            "admits everybody to port 9090/TCP; the connection goes to port 8080/TCP, the targetPort of 80",
        ),
    ];
    for (rules, admits, expected) in cases {
        let spec = json!({"podSelector": {}, "ingress": rules});
        let (message, _) = verdict(by(Direction::Ingress, &spec, &[admits]));
        let begin =
            "80/TCP: NetworkPolicy shop/wall isolates the ingress of Pod shop/web-a, Pod shop/web-b and ";
        assert_eq!(message.strip_prefix(begin), Some(expected), "{message}");
    }
}

#[test]
fn the_fix_adds_what_is_missing() {
    let fix = |spec: &Value, admits: &[(bool, bool)], change: &dyn Fn(&mut Denial)| {
        let mut denials = by(Direction::Ingress, spec, admits);
        denials.iter_mut().for_each(change);
        verdict(denials).1
    };
    let patch =
        |operation: Value| format!("kubectl -n shop patch networkpolicy wall --type=json -p '[{operation}]'");
    let port = json!({"port": 8080, "protocol": "TCP"});
    let unchanged = |_: &mut Denial| ();

    // A port of the rule that admits the client.
    let rules = json!([{"from": [pods(json!({"app": "api"}))]}, {"ports": [{"port": 1}]}]);
    let spec = json!({"podSelector": {}, "ingress": rules});
    assert_eq!(
        fix(&spec, &[(false, true), (true, false)], &unchanged),
        patch(json!({"op": "add", "path": "/spec/ingress/1/ports/-", "value": port}))
    );
    // The first rule of all: by the labels that whoever made the Pod gave it.
    let nothing = json!({"podSelector": {}});
    let rule = |peer: Value| json!({"from": [peer], "ports": [port]});
    let client = pods(json!({"app": "client"}));
    assert_eq!(
        fix(&nothing, &[], &unchanged),
        patch(json!({"op": "add", "path": "/spec/ingress", "value": [rule(client)]}))
    );
    // Of another namespace.
    let elsewhere = |denial: &mut Denial| {
        denial.peer.pod.as_mut().expect("a Pod").name.namespace = "lab".into();
    };
    let mut peer = pods(json!({"app": "client"}));
    peer["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": "lab"}});
    assert_eq!(
        fix(&spec, &[(false, true), (false, false)], &elsewhere),
        patch(json!({"op": "add", "path": "/spec/ingress/-", "value": rule(peer)}))
    );
    // No Pod at all.
    let outside = |denial: &mut Denial| denial.peer.pod = None;
    let block = json!({"ipBlock": {"cidr": "10.244.0.9/32"}});
    assert_eq!(
        fix(&spec, &[(false, true), (false, false)], &outside),
        patch(json!({"op": "add", "path": "/spec/ingress/-", "value": rule(block)}))
    );
    // Nothing to name it by.
    let unlabelled = |denial: &mut Denial| {
        denial.peer.pod.as_mut().expect("a Pod").labels.remove("app");
    };
    assert_eq!(
        fix(&nothing, &[], &unlabelled),
        "give the Pod a label and admit it: kubectl -n shop edit networkpolicy wall"
    );
}

#[test]
fn several_policies_and_none_that_may_be_read() {
    let web = json!({"podSelector": {}, "ingress": [{"from": [pods(json!({"app": "api"}))]}]});
    let policies = [
        ("deny", json!({"podSelector": {}}), &[][..]),
        ("web", web, &[(false, true)]),
    ];
    let (message, fix) = verdict(vec![denial(
        &format!("{POD_A}:8080"),
        Direction::Ingress,
        &policies,
    )]);
    assert!(
        message.contains(
            "NetworkPolicies shop/deny, shop/web isolate the ingress of Pod shop/web-a and admit Pods with app=api to every port; Pod shop/client has app=client (1 of 2 endpoints cannot be reached)"
        ),
        "{message}"
    );
    assert!(fix.contains("patch networkpolicy deny"), "{fix}");

    let unread = denial(&format!("{POD_A}:8080"), Direction::Ingress, &[]);
    let (message, _) = verdict(vec![unread]);
    assert!(
        message.contains("a NetworkPolicy, which may not be read, keeps"),
        "{message}"
    );
}

/// The endpoints are admitted, but nobody thought of the DNS.
#[test]
fn the_cluster_dns() {
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{"to": [pods(json!({"app": "web"}))]}]});
    let mut dns = by(Direction::Egress, &spec, &[(false, true)]).remove(0);
    dns.to = "10.96.0.10:53".parse().expect("an address");
    dns.protocol = Protocol::Udp;
    dns.peer.pod = Some(PeerPod {
        name: PodName {
            namespace: "kube-system".into(),
            name: "the cluster DNS".into(),
        },
        labels: [("k8s-app".to_owned(), "kube-dns".to_owned())].into(),
        namespace_labels: [].into(),
    });
    let mut evidence = kept_from(vec![dns]);
    connected(&mut evidence, &Connected::Accepted(Duration::from_micros(80)));
    evidence.dns.as_mut().expect("asked").answer = Answer::None("nothing came back within 2 s".into());
    golden("network-policy-dns", &evidence, Code::NetworkPolicyDenies);
    cluster::make_external_name(&mut evidence, "db.example.com");
    set_service(&mut evidence, "/spec/ports", json!([]));
    evidence.dns.as_mut().expect("asked").answer = Answer::None("nothing came back within 2 s".into());
    assert_eq!(diagnose(&evidence).verdict.code, Code::NetworkPolicyDenies);
}
