//! A cluster in which everything is fine, and ways to break it.

use crate::denial::{Denial, Direction, Isolation, Peer, PeerPod, PodName};
use crate::evidence::{
    Action, Answer, Client, Connected, Connection, Evidence, Frontend, Lookup, Node, Protocol, Rule, Socket,
    Via,
};
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const NODE_IP: &str = "172.30.0.2";
pub const SERVICE_IP: &str = "10.96.0.7";
pub const POD_A: &str = "10.244.0.5";
pub const POD_B: &str = "10.244.0.6";
const CLIENT: &str = "10.244.0.9";

/// Service `web` in namespace `shop`, port 80 to the container port `http` (8080) of two Pods.
pub fn evidence() -> Evidence {
    let pair = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    let targets = [target(POD_A, 8080), target(POD_B, 8080)];
    let connection = |via, to| Connection {
        port: 0,
        via,
        to,
        outcome: Connected::Accepted(Duration::from_micros(120)),
    };
    let listening = vec![Socket {
        protocol: Protocol::Tcp,
        address: address("::"),
        port: 8080,
    }];
    Evidence {
        namespace: "shop".into(),
        name: "web".into(),
        service: Some(service()),
        services: vec![
            pair("default", "kubernetes"),
            pair("finance", "billing"),
            pair("shop", "cart"),
            pair("shop", "web"),
        ],
        pods: vec![pod("web-a", POD_A).into(), pod("web-b", POD_B).into()],
        elsewhere: BTreeMap::new(),
        workloads: Vec::new(),
        slices: vec![slice().into()],
        events: Vec::new(),
        node: Node {
            name: "node-1".into(),
            addresses: vec![address(NODE_IP)],
        },
        sockets: ["web-a", "web-b"]
            .map(|name| (name.to_owned(), Ok(listening.clone())))
            .into(),
        rules: Ok(vec![Rule {
            frontend: frontend(SERVICE_IP, 80),
            action: Action::Forward(targets.to_vec()),
            inside: None,
        }]),
        flows: Ok(Vec::new()),
        denials: Ok(Vec::new()),
        dns: Ok(Lookup {
            name: "web.shop.svc.cluster.local.".into(),
            server: address("10.96.0.10"),
            answer: Answer::Addresses(vec![address(SERVICE_IP)]),
        }),
        client: Client::default(),
        connections: Ok(vec![
            connection(Via::ClusterIp, target(SERVICE_IP, 80)),
            connection(Via::Endpoint, targets[0]),
            connection(Via::Endpoint, targets[1]),
        ]),
    }
}

fn service() -> Service {
    decode(json!({
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": SERVICE_IP,
            "clusterIPs": [SERVICE_IP],
            "ipFamilies": ["IPv4"],
            "selector": {"app": "web", "tier": "front"},
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}],
        },
    }))
}

fn pod(name: &str, ip: &str) -> Pod {
    decode(json!({
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"),
            "labels": {"app": "web", "tier": "front", "pod-template-hash": "6d4cf56db6"}},
        "spec": {"nodeName": "node-1", "containers": [{
            "name": "web", "image": "shop/web:1",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"port": "http", "path": "/ready"}},
        }]},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "web", "image": "shop/web:1", "imageID": "", "ready": true, "started": true,
                "restartCount": 0, "state": {"running": {}},
            }],
        },
    }))
}

fn slice() -> EndpointSlice {
    let endpoint = |ip: &str| {
        json!({"addresses": [ip], "nodeName": "node-1",
            "conditions": {"ready": true, "serving": true, "terminating": false}})
    };
    decode(json!({
        "metadata": {"namespace": "shop", "name": "web-x7k2p", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [endpoint(POD_A), endpoint(POD_B)],
    }))
}

/// Of Pod `web-a`.
pub fn event(reason: &str, message: &str) -> Event {
    decode(json!({
        "metadata": {"namespace": "shop", "name": "web-a.1"},
        "involvedObject": {"kind": "Pod", "name": "web-a", "uid": "uid-web-a"},
        "reason": reason,
        "message": message,
    }))
}

/// Name, spec, and what each rule admits of a connection: the peer, the port.
pub type PolicyText<'a> = (&'a str, Value, &'a [(bool, bool)]);

/// Pod `client` of namespace `shop` is kept from `to` by policies of that namespace, whose rules admit so much.
pub fn denial(to: &str, direction: Direction, policies: &[PolicyText<'_>]) -> Denial {
    let pod = |name: &str| PodName {
        namespace: "shop".into(),
        name: name.into(),
    };
    let labels = |labels: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = labels.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        owned.collect()
    };
    let to: SocketAddr = to.parse().expect("an address and a port");
    let server = if to.ip() == address(POD_A) {
        "web-a"
    } else {
        "web-b"
    };
    let peer = |name: &str, own: &[(&str, &str)]| PeerPod {
        name: pod(name),
        labels: labels(own),
        namespace_labels: labels(&[("kubernetes.io/metadata.name", "shop"), ("team", "sales")]),
    };
    let client = peer("client", &[("app", "client"), ("pod-template-hash", "7c")]);
    let server = peer(server, &[("app", "web"), ("tier", "front")]);
    let (isolated, peer, address) = match direction {
        Direction::Ingress => (server, client, address(CLIENT)),
        Direction::Egress => (client, server, to.ip()),
    };
    Denial {
        to,
        protocol: Protocol::Tcp,
        direction,
        pod: isolated.name,
        peer: Peer {
            address,
            pod: Some(peer),
        },
        policies: policies
            .iter()
            .map(|(name, spec, admits)| Isolation {
                policy: Arc::new(decode(
                    json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec}),
                )),
                admits: admits.to_vec(),
            })
            .collect(),
    }
}

/// Sets a field of the Service.
pub fn set_service(evidence: &mut Evidence, pointer: &str, value: Value) {
    let service = evidence.service.as_mut().expect("there is a Service");
    set(service, pointer, value);
}

/// Sets a field of one Pod.
pub fn set_pod(evidence: &mut Evidence, index: usize, pointer: &str, value: Value) {
    set(Arc::make_mut(&mut evidence.pods[index]), pointer, value);
}

/// Sets a field of all Pods.
pub fn set_pods(evidence: &mut Evidence, pointer: &str, value: &Value) {
    for pod in &mut evidence.pods {
        set(Arc::make_mut(pod), pointer, value.clone());
    }
}

/// Takes a Pod out of slices, rules and connections.
pub fn remove_endpoint(evidence: &mut Evidence, ip: &str) {
    for slice in &mut evidence.slices {
        Arc::make_mut(slice)
            .endpoints
            .iter_mut()
            .flatten()
            .filter(|e| e.addresses[0] == ip)
            .for_each(|e| {
                let conditions = e.conditions.as_mut().expect("conditions");
                (conditions.ready, conditions.serving) = (Some(false), Some(false));
            });
    }
    for rule in evidence.rules.iter_mut().flatten() {
        if let Action::Forward(targets) = &mut rule.action {
            targets.retain(|target| target.ip() != address(ip));
        }
    }
    if let Ok(connections) = &mut evidence.connections {
        connections.retain(|connection| connection.to.ip() != address(ip));
    }
}

/// Slices, rules and connections lead to this port.
pub fn set_target(evidence: &mut Evidence, port: u16) {
    for slice in &mut evidence.slices {
        Arc::make_mut(slice)
            .ports
            .iter_mut()
            .flatten()
            .for_each(|p| p.port = Some(port.into()));
    }
    for rule in evidence.rules.iter_mut().flatten() {
        if let Action::Forward(targets) = &mut rule.action {
            targets.iter_mut().for_each(|target| target.set_port(port));
        }
    }
    let connections = evidence.connections.iter_mut().flatten();
    connections
        .filter(|c| c.via == Via::Endpoint)
        .for_each(|c| c.to.set_port(port));
}

/// The node port is served and answers.
pub fn add_node_port(evidence: &mut Evidence, port: u16) {
    let rules = evidence.rules.as_mut().expect("seen");
    let action = rules[0].action.clone();
    rules.push(Rule {
        frontend: frontend("0.0.0.0", port),
        action,
        inside: None,
    });
    let connections = evidence.connections.as_mut().expect("tried");
    connections.insert(
        1,
        Connection {
            port: 0,
            via: Via::NodePort,
            to: target(NODE_IP, port),
            outcome: Connected::Accepted(Duration::from_micros(140)),
        },
    );
}

/// The Pods are on another node.
pub fn move_endpoints(evidence: &mut Evidence, node: &str) {
    set_pods(evidence, "/spec/nodeName", &json!(node));
    evidence.sockets.clear();
    for slice in &mut evidence.slices {
        Arc::make_mut(slice)
            .endpoints
            .iter_mut()
            .flatten()
            .for_each(|e| e.node_name = Some(node.to_owned()));
    }
}

/// The same Service with UDP.
pub fn make_udp(evidence: &mut Evidence) {
    set_service(evidence, "/spec/ports/0/protocol", json!("UDP"));
    set_pods(evidence, "/spec/containers/0/ports/0/protocol", &json!("UDP"));
    Arc::make_mut(&mut evidence.slices[0])
        .ports
        .as_mut()
        .expect("ports")[0]
        .protocol = Some("UDP".into());
    evidence.rules.as_mut().expect("seen")[0].frontend.protocol = Protocol::Udp;
    let sockets = evidence.sockets.values_mut().flatten().flatten();
    sockets.for_each(|socket| socket.protocol = Protocol::Udp);
    evidence.connections = Ok(Vec::new());
}

/// The Service is a name for another.
pub fn make_external_name(evidence: &mut Evidence, name: &str) {
    set_service(
        evidence,
        "/spec",
        json!({"type": "ExternalName", "externalName": name}),
    );
    evidence.slices.clear();
    evidence.rules = Ok(Vec::new());
    evidence.connections = Ok(Vec::new());
    let lookup = evidence.dns.as_mut().expect("asked");
    lookup.answer = Answer::Alias(name.to_owned(), vec![address("192.0.2.1")]);
}

/// The Service has no address.
pub fn make_headless(evidence: &mut Evidence) {
    set_service(evidence, "/spec/clusterIP", json!("None"));
    set_service(evidence, "/spec/clusterIPs", json!(["None"]));
    evidence.rules = Ok(Vec::new());
    let lookup = evidence.dns.as_mut().expect("asked");
    lookup.answer = Answer::Addresses(vec![address(POD_A), address(POD_B)]);
    let connections = evidence.connections.as_mut().expect("tried");
    connections.retain(|connection| connection.via == Via::Endpoint);
}

fn frontend(ip: &str, port: u16) -> Frontend {
    Frontend {
        address: address(ip),
        port,
        protocol: Protocol::Tcp,
    }
}

fn target(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address(ip), port)
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn set<T: Serialize + DeserializeOwned>(object: &mut T, pointer: &str, value: Value) {
    let mut json = serde_json::to_value(&*object).expect("objects are JSON");
    let (parent, field) = pointer.rsplit_once('/').expect("a path");
    let parent = json.pointer_mut(parent).expect("the field's parent is there");
    parent[field] = value;
    *object = decode(json);
}

fn decode<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("a valid object")
}
