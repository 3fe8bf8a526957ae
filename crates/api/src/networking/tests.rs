//! Golden cases of Ingresses, NetworkPolicies, EndpointSlices, addresses.

use crate::strategy::strategy;
use crate::tests::{create, named, row, update, wrong};
use serde_json::{Value, json};

fn ingress(path: Value) -> Value {
    json!({"spec": {"rules": [{"host": "go-demo-2.com", "http": {"paths": [path]}}]}})
}

#[test]
fn ingresses() {
    let kind = strategy("networking.k8s.io", "Ingress");
    let backend = json!({"service": {"name": "go-demo-2-api", "port": {"number": 8080}}});
    let mut made = named(
        kind,
        "go-demo-2",
        ingress(json!({"path": "/demo", "pathType": "ImplementationSpecific", "backend": backend})),
    );
    assert_eq!(create(kind, &mut made), "");
    assert_eq!(made["status"], json!({"loadBalancer": {}}));
    assert_eq!(
        row(kind, &made),
        json!(["go-demo-2", "<none>", "go-demo-2.com", "", "80", "5m"])
    );
    made["spec"]["tls"] = json!([{"hosts": ["go-demo-2.com"]}]);
    made["spec"]["ingressClassName"] = json!("nginx");
    made["status"]["loadBalancer"]["ingress"] = json!([{"ip": "10.0.0.1"}, {"hostname": "lb.example.com"}]);
    assert_eq!(
        row(kind, &made),
        json!([
            "go-demo-2",
            "nginx",
            "go-demo-2.com",
            "10.0.0.1,lb.example.com",
            "80, 443",
            "5m"
        ])
    );

    let at = "spec.rules[0].http.paths[0]";
    let cases = [
        (
            json!({"path": "demo", "pathType": "Prefix", "backend": backend}),
            format!("{at}.path: Invalid value: \"demo\": must be an absolute path"),
        ),
        (
            json!({"path": "/", "backend": backend}),
            format!("{at}.pathType: Required value: pathType must be specified"),
        ),
        (
            json!({"path": "/", "pathType": "Prefix", "backend": {}}),
            format!("{at}.backend: Invalid value: \"\": resource or service backend is required"),
        ),
        (
            json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "a"}}}),
            format!("{at}.backend: Required value: port name or number is required"),
        ),
    ];
    for (path, expected) in cases {
        assert_eq!(wrong(kind, ingress(path)), expected);
    }
    assert_eq!(
        wrong(kind, json!({"spec": {}})),
        "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"
    );
}

#[test]
fn network_policies() {
    let kind = strategy("networking.k8s.io", "NetworkPolicy");
    let spec = json!({
        "podSelector": {"matchLabels": {"role": "db"}},
        "ingress": [{"ports": [{"port": 6379}], "from": [{"podSelector": {}}]}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.0/28"]}}]}],
    });
    let mut policy = named(kind, "db", json!({"spec": spec}));
    assert_eq!(create(kind, &mut policy), "");
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["protocol"], "TCP");
    assert_eq!(row(kind, &policy), json!(["db", "role=db", "5m"]));

    let spec = json!({
        "podSelector": {},
        "ingress": [{
            "ports": [{"port": 80, "endPort": 70}, {"port": "http", "endPort": 90}, {"endPort": 1}],
            "from": [{}, {"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/33"}}],
        }],
    });
    assert_eq!(
        wrong(kind, json!({"spec": spec})),
        "spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`; \
         spec.ingress[0].ports[1].endPort: Invalid value: 90: may not be specified when `port` is non-numeric; \
         spec.ingress[0].ports[2].endPort: Invalid value: 1: may not be specified when `port` is not specified; \
         spec.ingress[0].from[0]: Required value: must specify a peer; spec.ingress[0].from[1].ipBlock.cidr: Invalid \
         value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64); \
         spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer"
    );
}

#[test]
fn endpoint_slices() {
    let kind = strategy("discovery.k8s.io", "EndpointSlice");
    let mut slice = named(
        kind,
        "api-x2",
        json!({
            "addressType": "IPv4", "ports": [{"port": 8080}],
            "endpoints": [{"addresses": ["10.244.0.7"]}, {"addresses": ["10.244.1.3"]}],
        }),
    );
    assert_eq!(create(kind, &mut slice), "");
    assert_eq!(
        slice["ports"],
        json!([{"port": 8080, "name": "", "protocol": "TCP"}])
    );
    assert_eq!(
        row(kind, &slice),
        json!(["api-x2", "IPv4", "8080", "10.244.0.7,10.244.1.3", "5m"])
    );
    let mut labelled = slice.clone();
    labelled["metadata"]["labels"] = json!({"kubernetes.io/service-name": "api"});
    assert_eq!(update(kind, &mut labelled, &slice), "");
    assert_eq!(labelled["metadata"]["generation"], 2, "labels count");
    labelled["addressType"] = json!("IPv6");
    assert_eq!(
        update(kind, &mut labelled, &slice),
        "endpoints[0].addresses: Invalid value: \"10.244.0.7\": must be an IPv6 address; endpoints[1].addresses: \
         Invalid value: \"10.244.1.3\": must be an IPv6 address; addressType: Invalid value: \"IPv6\": field is \
         immutable"
    );
    assert_eq!(
        wrong(kind, json!({"addressType": "x", "endpoints": [{}]})),
        "addressType: Unsupported value: \"x\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"; \
         endpoints[0].addresses: Required value: must contain at least 1 address"
    );
}

#[test]
fn endpoints() {
    let kind = strategy("", "Endpoints");
    assert_eq!(
        kind.request_warning(),
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    );
    let mut endpoints = named(
        kind,
        "api",
        json!({"subsets": [{
            "addresses": [{"ip": "10.244.0.7"}, {"ip": "10.244.0.8"}],
            "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}],
        }]}),
    );
    assert_eq!(create(kind, &mut endpoints), "");
    assert_eq!(
        row(kind, &endpoints),
        json!([
            "api",
            "10.244.0.7:80,10.244.0.8:80,10.244.0.7:81 + 1 more...",
            "5m"
        ])
    );
    assert_eq!(
        row(kind, &named(kind, "api", json!({}))),
        json!(["api", "<none>", "5m"])
    );
    assert_eq!(
        wrong(
            kind,
            json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{}]}]})
        ),
        "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, \
         ::1/128); subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"
    );
}

#[test]
fn addresses_of_services() {
    let kind = strategy("networking.k8s.io", "IPAddress");
    let parent = json!({"resource": "services", "namespace": "default", "name": "kubernetes"});
    let mut address = named(kind, "10.96.0.1", json!({"spec": {"parentRef": parent}}));
    assert_eq!(create(kind, &mut address), "");
    assert_eq!(
        row(kind, &address),
        json!(["10.96.0.1", "services/default/kubernetes", "5m"])
    );
    let kind = strategy("networking.k8s.io", "ServiceCIDR");
    let mut range = named(kind, "kubernetes", json!({"spec": {"cidrs": ["10.96.0.0/16"]}}));
    assert_eq!(create(kind, &mut range), "");
    assert_eq!(row(kind, &range), json!(["kubernetes", "10.96.0.0/16", "5m"]));
    assert_eq!(
        wrong(kind, json!({"spec": {}})),
        "spec.cidrs: Required value: at least one CIDR required"
    );
}
