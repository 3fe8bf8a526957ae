//! A golden case for each verdict: the whole text that a person reads, in `tests/golden`.
//! `UPDATE_GOLDEN=1` writes the files anew.

mod cluster;
mod network_policy;

use crate::evidence::{Action, Answer, Connected, Flow, Protocol, Socket, Via, Workload};
use crate::{Code, Evidence, Outcome, Severity, StepName, attempts, diagnose, unknown_balancing};
use cluster::{POD_A, POD_B, SERVICE_IP, evidence, set_pod, set_pods, set_service};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Compares the text with the file, and the verdict's code.
#[track_caller]
fn golden(name: &str, evidence: &Evidence, code: Code) {
    let diagnosis = diagnose(evidence);
    let text = diagnosis.to_string();
    assert_eq!(diagnosis.verdict.code, code, "{text}");
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/tests/golden/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).expect("the file can be written");
    }
    let wanted = std::fs::read_to_string(&file).expect("a golden file; UPDATE_GOLDEN=1 makes it");
    assert_eq!(text, wanted, "{name}");
}

fn sockets(evidence: &mut Evidence, sockets: &[(Protocol, &str, u16)]) {
    for listening in evidence.sockets.values_mut() {
        *listening = Ok(sockets
            .iter()
            .map(|(protocol, address, port)| Socket {
                protocol: *protocol,
                address: address.parse().expect("an address"),
                port: *port,
            })
            .collect());
    }
}

/// All connections end like this.
fn connected(evidence: &mut Evidence, outcome: &Connected) {
    for connection in evidence.connections.iter_mut().flatten() {
        connection.outcome = outcome.clone();
    }
}

const REFUSED: Connected = Connected::Refused(Duration::from_micros(90));
const TIMED_OUT: Connected = Connected::TimedOut(Duration::from_secs(2));

/// What follows from having no ready endpoint.
fn without_endpoints(evidence: &mut Evidence) {
    evidence.slices.clear();
    for rule in evidence.rules.iter_mut().flatten() {
        rule.action = Action::Refuse;
    }
    if let Ok(connections) = &mut evidence.connections {
        connections.retain(|c| c.via != Via::Endpoint);
    }
    connected(evidence, &REFUSED);
}

/// What follows from Pods that are not ready.
fn not_ready(evidence: &mut Evidence, status: &serde_json::Value) {
    set_pods(evidence, "/status", status);
    without_endpoints(evidence);
}

#[test]
fn all_fine() {
    golden("answers", &evidence(), Code::Answers);
}

#[test]
fn node_port_from_outside() {
    let mut evidence = evidence();
    set_service(&mut evidence, "/spec/type", json!("NodePort"));
    set_service(&mut evidence, "/spec/ports/0/nodePort", json!(30080));
    cluster::add_node_port(&mut evidence, 30080);
    golden("answers-node-port", &evidence, Code::Answers);

    // Forwarded packets are filtered: the host itself and Pods reach it, the node port does not answer.
    let connections = evidence.connections.as_mut().expect("tried");
    connections
        .iter_mut()
        .filter(|c| c.via == Via::NodePort)
        .for_each(|c| c.outcome = TIMED_OUT);
    golden("node-port-filtered", &evidence, Code::ServiceUnreachable);
}

#[test]
fn no_such_service() {
    let mut evidence = evidence();
    evidence.service = None;
    evidence.name = "wbe".into();
    golden("no-such-service-near", &evidence, Code::NoSuchService);
    evidence.name = "billing".into();
    golden("no-such-service-other-namespace", &evidence, Code::NoSuchService);
    evidence.services.clear();
    golden("no-such-service", &evidence, Code::NoSuchService);
}

#[test]
fn selector_matches_nothing() {
    let mut slip = evidence();
    set_service(&mut slip, "/spec/selector", json!({"app": "webb"}));
    without_endpoints(&mut slip);
    golden("selector-slip", &slip, Code::SelectorMatchesNothing);

    let mut key = evidence();
    set_service(&mut key, "/spec/selector", json!({"ap": "web", "tier": "front"}));
    without_endpoints(&mut key);
    golden("selector-key", &key, Code::SelectorMatchesNothing);

    let mut elsewhere = evidence();
    elsewhere.pods.clear();
    elsewhere.elsewhere = [("staging".to_owned(), 2)].into();
    without_endpoints(&mut elsewhere);
    golden(
        "selector-other-namespace",
        &elsewhere,
        Code::SelectorMatchesNothing,
    );

    let mut nothing = evidence();
    nothing.pods.clear();
    without_endpoints(&mut nothing);
    golden("selector-no-pods", &nothing, Code::SelectorMatchesNothing);

    let mut other = evidence();
    set_service(&mut other, "/spec/selector", json!({"component": "ledger"}));
    without_endpoints(&mut other);
    golden("selector-other-labels", &other, Code::SelectorMatchesNothing);
}

#[test]
fn scaled_to_zero() {
    let mut evidence = evidence();
    evidence.pods.clear();
    without_endpoints(&mut evidence);
    evidence.workloads = vec![Workload {
        resource: "deployment".into(),
        name: "web".into(),
        replicas: 0,
        labels: [
            ("app".to_owned(), "web".to_owned()),
            ("tier".to_owned(), "front".to_owned()),
        ]
        .into(),
    }];
    golden("scaled-to-zero", &evidence, Code::ScaledToZero);
    evidence.workloads[0].replicas = 2;
    golden("pods-not-made", &evidence, Code::SelectorMatchesNothing);
}

#[test]
fn no_selector_and_no_endpoints() {
    let mut evidence = evidence();
    set_service(&mut evidence, "/spec/selector", json!(null));
    let slice = evidence.slices[0].clone();
    without_endpoints(&mut evidence);
    golden("no-selector", &evidence, Code::NoSelectorNoEndpoints);

    let mut unlabelled = slice.clone();
    Arc::make_mut(&mut unlabelled).metadata.labels = None;
    evidence.slices = vec![unlabelled];
    golden(
        "no-selector-unlabelled-slice",
        &evidence,
        Code::NoSelectorNoEndpoints,
    );

    let mut misnamed = slice;
    Arc::make_mut(&mut misnamed).ports.as_mut().expect("ports")[0].name = Some("http".into());
    evidence.slices = vec![misnamed];
    golden("no-selector-port-name", &evidence, Code::PortNameMismatch);
}

#[test]
fn unschedulable() {
    let mut evidence = evidence();
    let message = "0/1 nodes are available: 1 Insufficient cpu.";
    set_pods(&mut evidence, "/spec/nodeName", &json!(null));
    not_ready(
        &mut evidence,
        &json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}),
    );
    golden("unschedulable", &evidence, Code::Unschedulable);
}

/// A status whose only container is in this state.
fn container(state: &serde_json::Value, last_state: &serde_json::Value, restarts: i32) -> serde_json::Value {
    json!({
        "phase": "Running",
        "podIPs": [{"ip": POD_A}],
        "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
        "containerStatuses": [{
            "name": "web", "image": "shop/web:1", "imageID": "", "ready": false, "started": true,
            "restartCount": restarts, "state": state, "lastState": last_state,
        }],
    })
}

#[test]
fn image_pull() {
    let mut evidence = evidence();
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"shop/web:1\""}});
    not_ready(&mut evidence, &container(&waiting, &json!({}), 0));
    golden("image-pull", &evidence, Code::ImagePull);
}

#[test]
fn crash_loop() {
    let mut evidence = evidence();
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let ended = json!({"terminated": {"exitCode": 2, "reason": "Error"}});
    not_ready(&mut evidence, &container(&waiting, &ended, 5));
    golden("crash-loop", &evidence, Code::CrashLoop);
    let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    not_ready(&mut evidence, &container(&waiting, &ended, 1));
    golden("crash-loop-memory", &evidence, Code::CrashLoop);
}

#[test]
fn container_not_created() {
    let mut evidence = evidence();
    let waiting =
        json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"db\" not found"}});
    not_ready(&mut evidence, &container(&waiting, &json!({}), 0));
    golden("container-not-created", &evidence, Code::ContainerNotCreated);
}

#[test]
fn init_container() {
    let mut evidence = evidence();
    let mut status = container(&json!({"waiting": {"reason": "PodInitializing"}}), &json!({}), 0);
    status["initContainerStatuses"] = json!([{
        "name": "migrate", "image": "shop/migrate:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"running": {}},
    }]);
    not_ready(&mut evidence, &status);
    golden("init-container", &evidence, Code::InitContainer);
}

#[test]
fn probe_failing() {
    let mut evidence = evidence();
    not_ready(&mut evidence, &container(&json!({"running": {}}), &json!({}), 0));
    sockets(&mut evidence, &[(Protocol::Tcp, "0.0.0.0", 8000)]);
    golden("probe-failing-other-port", &evidence, Code::ProbeFailing);

    sockets(&mut evidence, &[(Protocol::Tcp, "::", 8080)]);
    evidence.events = vec![cluster::event(
        "Unhealthy",
        "Readiness probe failed: HTTP probe failed with statuscode: 503",
    )];
    golden("probe-failing", &evidence, Code::ProbeFailing);
}

#[test]
fn readiness_gate() {
    let mut evidence = evidence();
    set_pods(
        &mut evidence,
        "/spec/readinessGates",
        &json!([{"conditionType": "example.com/lb"}]),
    );
    let mut status = container(&json!({"running": {}}), &json!({}), 0);
    status["containerStatuses"][0]["ready"] = json!(true);
    not_ready(&mut evidence, &status);
    golden("readiness-gate", &evidence, Code::PodsNotReady);
}

#[test]
fn pods_that_end() {
    let mut evidence = evidence();
    set_pods(
        &mut evidence,
        "/metadata/deletionTimestamp",
        &json!("2026-01-01T00:00:00Z"),
    );
    without_endpoints(&mut evidence);
    golden("pods-end", &evidence, Code::PodsEnded);
}

#[test]
fn one_pod_of_two_not_ready_is_a_note() {
    let mut evidence = evidence();
    let mut status = container(&json!({"running": {}}), &json!({}), 0);
    status["podIPs"] = json!([{"ip": POD_B}]);
    set_pod(&mut evidence, 1, "/status", status);
    cluster::remove_endpoint(&mut evidence, POD_B);
    golden("one-not-ready", &evidence, Code::ProbeFailing);
    assert!(!diagnose(&evidence).is_problem());
}

#[test]
fn target_port_name_unknown() {
    let mut evidence = evidence();
    set_service(&mut evidence, "/spec/ports/0/targetPort", json!("htpp"));
    without_endpoints(&mut evidence);
    golden("target-port-name", &evidence, Code::TargetPortUnknown);
}

#[test]
fn nothing_listens_on_the_target_port() {
    let mut evidence = evidence();
    set_service(&mut evidence, "/spec/ports/0/targetPort", json!(80));
    cluster::set_target(&mut evidence, 80);
    connected(&mut evidence, &REFUSED);
    golden("nothing-listens", &evidence, Code::NothingListens);

    let several = [8443, 88, 9090].map(|port| (Protocol::Tcp, "0.0.0.0", port));
    sockets(&mut evidence, &several);
    golden("nothing-listens-near", &evidence, Code::NothingListens);

    sockets(&mut evidence, &[]);
    golden("nothing-listens-at-all", &evidence, Code::NothingListens);
}

#[test]
fn listens_on_loopback_only() {
    let mut evidence = evidence();
    sockets(&mut evidence, &[(Protocol::Tcp, "127.0.0.1", 8080)]);
    connected(&mut evidence, &REFUSED);
    golden("listens-on-loopback", &evidence, Code::ListensOnLoopback);
}

#[test]
fn wrong_protocol() {
    let mut evidence = evidence();
    sockets(&mut evidence, &[(Protocol::Udp, "0.0.0.0", 8080)]);
    connected(&mut evidence, &REFUSED);
    golden("wrong-protocol", &evidence, Code::WrongProtocol);

    // A name counts with its protocol only.
    let mut named = self::evidence();
    set_pods(&mut named, "/spec/containers/0/ports/0/protocol", &json!("UDP"));
    without_endpoints(&mut named);
    golden("wrong-protocol-named", &named, Code::WrongProtocol);
}

#[test]
fn a_connection_that_is_accepted_counts_more_than_sockets() {
    let mut evidence = evidence();
    sockets(&mut evidence, &[]);
    assert_eq!(diagnose(&evidence).verdict.code, Code::Answers);
}

#[test]
fn endpoint_slices_that_differ() {
    let mut missing = evidence();
    without_endpoints(&mut missing);
    golden("endpoints-missing", &missing, Code::EndpointsDiffer);

    let mut gone = evidence();
    gone.pods.truncate(1);
    golden("endpoints-gone", &gone, Code::EndpointsDiffer);
}

#[test]
fn rules_that_differ() {
    let mut missing = evidence();
    missing.rules = Ok(Vec::new());
    let connections = missing.connections.as_mut().expect("tried");
    connections
        .iter_mut()
        .filter(|c| c.via != Via::Endpoint)
        .for_each(|c| c.outcome = TIMED_OUT);
    golden("rule-missing", &missing, Code::RuleMissing);

    let mut stale = evidence();
    stale.rules.as_mut().expect("seen")[0].action =
        Action::Forward(vec!["10.244.0.99:8080".parse().expect("an address")]);
    golden("rule-stale", &stale, Code::RuleDiffers);

    let mut refuses = evidence();
    refuses.rules.as_mut().expect("seen")[0].action = Action::Refuse;
    golden("rule-refuses", &refuses, Code::RuleDiffers);
}

#[test]
fn traffic_policy_local_without_local_endpoints() {
    let mut evidence = evidence();
    set_service(&mut evidence, "/spec/type", json!("NodePort"));
    set_service(&mut evidence, "/spec/ports/0/nodePort", json!(30080));
    set_service(&mut evidence, "/spec/externalTrafficPolicy", json!("Local"));
    cluster::add_node_port(&mut evidence, 30080);
    cluster::move_endpoints(&mut evidence, "node-2");
    let rules = evidence.rules.as_mut().expect("seen");
    let inside = rules[0].action.clone();
    let node_port = rules.last_mut().expect("a node port");
    node_port.action = Action::Drop;
    node_port.inside = Some(inside);
    golden("no-local-endpoints", &evidence, Code::NoLocalEndpoints);
}

#[test]
fn udp_flows_to_endpoints_that_are_gone() {
    let mut evidence = evidence();
    cluster::make_udp(&mut evidence);
    golden("udp", &evidence, Code::NothingFound);
    assert_eq!(diagnose(&evidence).verdict.severity, Severity::Fine);

    evidence.flows = Ok(vec![Flow {
        protocol: Protocol::Udp,
        client: "10.244.0.9:40000".parse().expect("an address"),
        destination: format!("{SERVICE_IP}:80").parse().expect("an address"),
        endpoint: Some("10.244.0.99:8080".parse().expect("an address")),
    }]);
    golden("udp-stale-flow", &evidence, Code::StaleFlows);
}

#[test]
fn dns_that_differs() {
    let mut evidence = evidence();
    let lookup = evidence.dns.as_mut().expect("asked");
    lookup.answer = Answer::NoSuchName;
    golden("dns-no-such-name", &evidence, Code::DnsDiffers);
    let lookup = evidence.dns.as_mut().expect("asked");
    lookup.answer = Answer::Addresses(vec!["10.96.9.9".parse().expect("an address")]);
    golden("dns-other-address", &evidence, Code::DnsDiffers);
    let lookup = evidence.dns.as_mut().expect("asked");
    lookup.answer = Answer::None("no answer within 2 s".into());
    golden("dns-no-answer", &evidence, Code::DnsNoAnswer);
}

#[test]
fn a_client_that_does_not_ask_the_cluster_dns() {
    let mut evidence = evidence();
    evidence.client.pod = Some("client".into());
    evidence.client.namespace = "shop".into();
    evidence.client.resolver_of_node = true;
    golden("client-resolver", &evidence, Code::ClientResolver);
}

#[test]
fn external_names() {
    let mut evidence = evidence();
    cluster::make_external_name(&mut evidence, "db.example.com");
    golden("external-name", &evidence, Code::Answers);
    let lookup = evidence.dns.as_mut().expect("asked");
    lookup.answer = Answer::Alias("db.example.com".into(), Vec::new());
    golden(
        "external-name-unresolved",
        &evidence,
        Code::ExternalNameUnresolved,
    );
    let lookup = evidence.dns.as_mut().expect("asked");
    lookup.answer = Answer::None("nothing came back within 2 s".into());
    golden("external-name-no-answer", &evidence, Code::ExternalNameUnresolved);
}

#[test]
fn headless() {
    let mut evidence = evidence();
    cluster::make_headless(&mut evidence);
    golden("headless-port", &evidence, Code::HeadlessPort);
    set_service(&mut evidence, "/spec/ports/0/port", json!(8080));
    golden("headless", &evidence, Code::Answers);
}

#[test]
fn balancing_that_nobody_knows() {
    let mut evidence = evidence();
    let asks = |how: &str| json!({"coracle.dev/balancing": how});
    set_service(&mut evidence, "/metadata/annotations", asks("least-connection"));
    golden("balancing-unknown", &evidence, Code::BalancingUnknown);
    set_service(&mut evidence, "/metadata/annotations", asks("fastest"));
    let verdict = diagnose(&evidence).verdict;
    assert_eq!(verdict.severity, Severity::Note, "it answers all the same");
    assert!(
        verdict.fix.ends_with("shortest-expected-delay, never-queue"),
        "{}",
        verdict.fix
    );
    // What is in the way of packets comes first.
    without_endpoints(&mut evidence);
    evidence.pods.clear();
    assert_eq!(diagnose(&evidence).verdict.code, Code::SelectorMatchesNothing);

    for how in ["round-robin", "random"] {
        set_service(&mut evidence, "/metadata/annotations", asks(how));
        let service = evidence.service.as_ref().expect("a Service");
        assert_eq!(unknown_balancing(service), None);
    }
    // Clients choose by themselves.
    set_service(&mut evidence, "/metadata/annotations", asks("fastest"));
    cluster::make_headless(&mut evidence);
    let service = evidence.service.as_ref().expect("a Service");
    assert_eq!(unknown_balancing(service), None);
}

#[test]
fn load_balancer_pending() {
    let mut evidence = evidence();
    set_service(&mut evidence, "/spec/type", json!("LoadBalancer"));
    set_service(&mut evidence, "/spec/ports/0/nodePort", json!(30080));
    cluster::add_node_port(&mut evidence, 30080);
    golden("load-balancer-pending", &evidence, Code::LoadBalancerPending);
}

#[test]
fn endpoints_that_do_not_answer() {
    let mut evidence = evidence();
    connected(&mut evidence, &TIMED_OUT);
    golden("endpoint-unreachable", &evidence, Code::EndpointUnreachable);
}

#[test]
fn without_a_look_at_the_node_the_objects_are_judged_alone() {
    let mut evidence = evidence();
    let why = || "run as root on the node".to_owned();
    evidence.node = crate::Node::default();
    evidence.sockets.clear();
    evidence.rules = Err(why());
    evidence.flows = Err(why());
    evidence.dns = Err(why());
    evidence.connections = Err(why());
    golden("objects-alone", &evidence, Code::NothingFound);
    let unknown = |step| {
        let diagnosis = diagnose(&evidence);
        diagnosis
            .steps
            .iter()
            .any(|s| s.step == step && s.outcome == Outcome::Unknown)
    };
    assert!(unknown(StepName::Rule) && unknown(StepName::TargetPort) && unknown(StepName::Connection));
}

#[test]
fn every_address_of_the_service_is_to_be_tried() {
    let mut evidence = evidence();
    set_service(&mut evidence, "/spec/type", json!("NodePort"));
    set_service(&mut evidence, "/spec/ports/0/nodePort", json!(30080));
    cluster::add_node_port(&mut evidence, 30080);
    let tried: Vec<_> = evidence
        .connections
        .iter()
        .flatten()
        .map(|c| (c.port, c.via.clone(), c.to))
        .collect();
    let attempts: Vec<_> = attempts(&evidence)
        .into_iter()
        .map(|a| (a.port, a.via, a.to))
        .collect();
    assert_eq!(attempts, tried);
    cluster::make_udp(&mut evidence);
    assert_eq!(self::attempts(&evidence), []);
}

#[test]
fn the_json_form_has_codes_and_steps() {
    let diagnosis = json!(diagnose(&evidence()));
    assert_eq!(diagnosis["verdict"]["code"], "Answers");
    assert_eq!(diagnosis["verdict"]["severity"], "fine");
    assert_eq!(diagnosis["steps"][0]["step"], "object");
    assert_eq!(diagnosis["steps"][0]["outcome"], "ok");
}

#[test]
fn an_external_name_that_is_an_address() {
    let mut evidence = evidence();
    cluster::make_external_name(&mut evidence, "192.0.2.1");
    evidence.dns = Err("not looked at".into());
    golden("external-name-address", &evidence, Code::ExternalNameIsAddress);
}

#[test]
fn pods_that_are_on_their_way() {
    let mut evidence = evidence();
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    not_ready(&mut evidence, &container(&waiting, &json!({}), 0));
    golden("pods-starting", &evidence, Code::PodsStarting);
}
