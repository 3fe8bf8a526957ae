use super::*;
use crate::fake_reader::FakeReader;
use crate::request::Attributes;
use coracle_meta::GroupVersionKind;
use serde_json::json;
use std::collections::HashSet;
use tokio::sync::mpsc::UnboundedReceiver;

struct Cluster {
    allocator: ServiceAllocator,
    changes: parking_lot::Mutex<UnboundedReceiver<IpChange>>,
}

fn cluster(networks: &[&str]) -> Cluster {
    let (changes, receiver) = IpChanges::channel();
    let networks: Vec<IpNet> = networks.iter().map(|n| n.parse().unwrap()).collect();
    Cluster {
        allocator: ServiceAllocator::new(&networks, PortRange::default(), changes),
        changes: parking_lot::Mutex::new(receiver),
    }
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": "d", "name": name, "uid": format!("uid-{name}")}, "spec": spec})
}

impl Cluster {
    /// One write from admission to the store, which takes it or not.
    fn write(&self, mut object: Value, old: Option<&Value>, commit: bool) -> Result<Value, String> {
        let attributes = Attributes {
            resource: "services".to_owned(),
            namespace: "d".to_owned(),
            ..Attributes::default()
        };
        let mut request = AdmissionRequest {
            operation: if old.is_some() {
                Operation::Update
            } else {
                Operation::Create
            },
            attributes: &attributes,
            kind: &GroupVersionKind::new("", "v1", "Service"),
            object: Some(&mut object),
            old,
            dry_run: false,
            options: &Value::Null,
            warnings: Vec::new(),
        };
        self.allocator
            .admit(&mut request, &FakeReader::default())
            .map_err(|status| status.message)?;
        self.allocator.finish(&request, commit);
        Ok(object)
    }

    fn create(&self, name: &str, spec: Value) -> Result<Value, String> {
        self.write(service(name, spec), None, true)
    }

    fn update(&self, old: &Value, change: impl FnOnce(&mut Value)) -> Result<Value, String> {
        let mut new = old.clone();
        change(&mut new["spec"]);
        self.write(new, Some(old), true)
    }

    fn delete(&self, service: &Value) {
        self.allocator
            .removed(&GroupResource::new("", "services"), service);
    }

    fn told(&self) -> Vec<IpChange> {
        let mut changes = self.changes.lock();
        std::iter::from_fn(|| changes.try_recv().ok()).collect()
    }
}

fn node_port(port: i64, node_port: i64) -> Value {
    json!({"type": "NodePort", "ports": [{"port": port, "nodePort": node_port}]})
}

#[test]
fn a_service_gets_an_address_and_gives_it_back() {
    let cluster = cluster(&["10.96.0.0/12"]);
    let created = cluster.create("a", json!({"ports": [{"port": 80}]})).unwrap();
    let spec = &created["spec"];
    let ip: IpAddr = spec["clusterIP"].as_str().unwrap().parse().unwrap();
    assert_eq!(spec["clusterIPs"], json!([ip]));
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    assert_eq!(spec["ports"], json!([{"port": 80}]));
    assert_eq!(cluster.told(), [IpChange::allocated(ip, &created)]);

    let taken = cluster
        .create("b", json!({"clusterIP": ip, "ports": []}))
        .unwrap_err();
    assert_eq!(
        taken,
        format!(
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: failed to allocate IP {ip}: provided IP is already allocated"
        )
    );
    cluster.delete(&created);
    assert_eq!(cluster.told(), [IpChange::Released(ip)]);
    cluster
        .create("b", json!({"clusterIP": ip, "ports": []}))
        .unwrap();
}

#[test]
fn addresses_outside_and_malformed() {
    let cluster = cluster(&["10.96.0.0/16"]);
    let outside = cluster
        .create("a", json!({"clusterIP": "10.97.0.1"}))
        .unwrap_err();
    assert!(
        outside.contains("failed to allocate IP 10.97.0.1: the provided IP (10.97.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16"),
        "{outside}"
    );
    let malformed = cluster
        .create("a", json!({"clusterIP": "300.1.1.1"}))
        .unwrap_err();
    assert!(
        malformed.contains(r#"spec.clusterIPs[0]: Invalid value: "300.1.1.1": must be a valid IP address"#),
        "{malformed}"
    );
    let v6 = cluster.create("a", json!({"clusterIP": "fd00::1"})).unwrap_err();
    assert!(v6.contains("IPv6 is not configured on this cluster"), "{v6}");
}

#[test]
fn headless_and_external_name_hold_nothing() {
    let cluster = cluster(&["10.96.0.0/12"]);
    let headless = cluster
        .create("h", json!({"clusterIP": "None", "selector": {"a": "b"}}))
        .unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4"]));
    let bare = cluster.create("b", json!({"clusterIP": "None"})).unwrap();
    assert_eq!(bare["spec"]["ipFamilyPolicy"], "RequireDualStack");
    assert_eq!(bare["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let external = cluster
        .create("e", json!({"type": "ExternalName", "externalName": "x"}))
        .unwrap();
    assert_eq!(
        external["spec"],
        json!({"type": "ExternalName", "externalName": "x"})
    );
    assert_eq!(cluster.told(), []);
}

#[test]
fn node_ports_are_unique_and_in_range() {
    let cluster = cluster(&["10.96.0.0/12"]);
    let first = cluster.create("a", node_port(28017, 30001)).unwrap();
    assert_eq!(
        cluster.create("b", node_port(1, 30001)).unwrap_err(),
        r#"Service "b" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"#
    );
    assert_eq!(
        cluster.create("b", node_port(1, 80)).unwrap_err(),
        r#"Service "b" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"#
    );
    // A refused Service leaves no address behind either.
    assert_eq!(cluster.told().len(), 1);
    cluster.delete(&first);
    cluster.create("b", node_port(1, 30001)).unwrap();
}

#[test]
fn ports_of_one_number_share_a_node_port() {
    let cluster = cluster(&["10.96.0.0/12"]);
    let dns = json!({"type": "NodePort", "ports": [
        {"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53, "nodePort": 30053}, {"name": "m", "port": 9153},
    ]});
    let created = cluster.create("dns", dns).unwrap();
    let ports = created["spec"]["ports"].as_array().unwrap();
    assert_eq!(ports[0]["nodePort"], 30053);
    assert_eq!(ports[1]["nodePort"], 30053);
    assert!(ports[2]["nodePort"].as_i64().unwrap() >= 30086);
    let twice = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30100}, {"port": 2, "nodePort": 30100}]});
    let twice = cluster.create("x", twice).unwrap_err();
    assert!(
        twice.contains("spec.ports[1].nodePort: Invalid value: 30100: provided port is already allocated"),
        "{twice}"
    );
    cluster.create("y", node_port(1, 30100)).unwrap();
}

#[test]
fn a_write_that_is_not_stored_gives_everything_back() {
    let cluster = cluster(&["10.96.0.0/12"]);
    let spec =
        json!({"type": "NodePort", "clusterIP": "10.96.0.7", "ports": [{"port": 1, "nodePort": 30007}]});
    cluster.write(service("a", spec.clone()), None, false).unwrap();
    let stored = cluster.create("b", spec).unwrap();

    let mut more = stored.clone();
    more["spec"]["ports"] =
        json!([{"port": 1, "nodePort": 30007}, {"name": "x", "port": 2, "nodePort": 30008}]);
    cluster.write(more, Some(&stored), false).unwrap();
    cluster.create("c", node_port(1, 30008)).unwrap();
    // What the stored Service holds was not given back by the failed update.
    assert!(cluster.create("d", node_port(1, 30007)).is_err());

    // An update that tries to take over another's address never frees that address.
    let mut theft = stored.clone();
    let other = cluster.create("e", json!({"clusterIP": "10.96.0.8"})).unwrap();
    theft["spec"]["clusterIP"] = "10.96.0.8".into();
    theft["spec"]["clusterIPs"] = json!(["10.96.0.8"]);
    cluster.write(theft, Some(&stored), false).unwrap();
    assert!(cluster.create("f", json!({"clusterIP": "10.96.0.8"})).is_err());
    cluster.delete(&other);
    cluster.create("f", json!({"clusterIP": "10.96.0.8"})).unwrap();
}

#[test]
fn type_changes_allocate_and_release() {
    let cluster = cluster(&["10.96.0.0/12"]);
    let plain = cluster
        .create("a", json!({"type": "ClusterIP", "ports": [{"port": 80}]}))
        .unwrap();
    let ip = plain["spec"]["clusterIP"].clone();
    let exposed = cluster
        .update(&plain, |spec| spec["type"] = "NodePort".into())
        .unwrap();
    let port = exposed["spec"]["ports"][0]["nodePort"].clone();
    assert!(port.as_i64().unwrap() >= 30000);
    assert_eq!(exposed["spec"]["clusterIP"], ip);

    // The same manifest again keeps what was given.
    let again = service("a", json!({"type": "NodePort", "ports": [{"port": 80}]}));
    let again = cluster.write(again, Some(&exposed), true).unwrap();
    assert_eq!(again["spec"], exposed["spec"]);

    let hidden = cluster.update(&again, |spec| {
        spec["type"] = "ClusterIP".into();
        spec["ports"] = json!([{"port": 80}]);
    });
    let hidden = hidden.unwrap();
    cluster.create("b", node_port(1, port.as_i64().unwrap())).unwrap();

    let external = cluster
        .update(&hidden, |spec| {
            *spec = json!({"type": "ExternalName", "externalName": "x"})
        })
        .unwrap();
    cluster.create("c", json!({"clusterIP": ip})).unwrap();
    let back = cluster
        .update(&external, |spec| *spec = json!({"type": "ClusterIP"}))
        .unwrap();
    assert!(back["spec"]["clusterIP"].is_string());
    assert_ne!(back["spec"]["clusterIP"], ip);
}

#[test]
fn changed_ports_release_the_old_ones() {
    let cluster = cluster(&["10.96.0.0/12"]);
    let old = cluster.create("a", node_port(80, 30010)).unwrap();
    let moved = cluster
        .update(&old, |spec| spec["ports"][0]["nodePort"] = 30011.into())
        .unwrap();
    assert_eq!(moved["spec"]["ports"][0]["nodePort"], 30011);
    cluster.create("b", node_port(80, 30010)).unwrap();
    assert!(cluster.create("c", node_port(80, 30011)).is_err());
}

#[test]
fn load_balancers() {
    let cluster = cluster(&["10.96.0.0/12"]);
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let local = cluster.create("a", local).unwrap();
    assert!(local["spec"]["healthCheckNodePort"].as_i64().unwrap() >= 30000);
    assert!(local["spec"]["ports"][0]["nodePort"].as_i64().unwrap() >= 30000);
    let without =
        json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]});
    let without = cluster.create("b", without).unwrap();
    assert_eq!(without["spec"]["ports"], json!([{"port": 80}]));
}

#[test]
fn dual_stack() {
    let cluster = cluster(&["10.96.0.0/16", "fd00::/112"]);
    let both = cluster
        .create("a", json!({"ipFamilyPolicy": "PreferDualStack"}))
        .unwrap();
    assert_eq!(both["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(both["spec"]["clusterIPs"].as_array().map(Vec::len), Some(2));
    let one = cluster
        .update(&both, |spec| spec["ipFamilyPolicy"] = "SingleStack".into())
        .unwrap();
    assert_eq!(one["spec"]["clusterIPs"], json!([both["spec"]["clusterIP"]]));
    let upgraded = cluster
        .update(&one, |spec| spec["ipFamilyPolicy"] = "RequireDualStack".into())
        .unwrap();
    assert_eq!(upgraded["spec"]["clusterIPs"].as_array().map(Vec::len), Some(2));
    assert_eq!(upgraded["spec"]["clusterIP"], both["spec"]["clusterIP"]);

    let single = self::cluster(&["10.96.0.0/16"]);
    let refused = single
        .create("a", json!({"ipFamilyPolicy": "RequireDualStack"}))
        .unwrap_err();
    assert!(
        refused.contains("this cluster is not configured for dual-stack services"),
        "{refused}"
    );
    let prefer = single
        .create("a", json!({"ipFamilyPolicy": "PreferDualStack"}))
        .unwrap();
    assert_eq!(prefer["spec"]["ipFamilies"], json!(["IPv4"]));
}

#[test]
fn restored_from_stored_services() {
    let cluster = cluster(&["10.96.0.0/16"]);
    let stored = [
        service(
            "a",
            json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"]}),
        ),
        service(
            "b",
            json!({"type": "NodePort", "clusterIP": "10.96.0.6", "clusterIPs": ["10.96.0.6"],
            "ports": [{"port": 53, "nodePort": 30053}, {"port": 53, "nodePort": 30053}]}),
        ),
        service(
            "c",
            json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"]}),
        ),
    ];
    assert_eq!(
        cluster.allocator.restore(&stored),
        ["Service d/c: 10.96.0.5: provided IP is already allocated"]
    );
    assert!(cluster.create("x", json!({"clusterIP": "10.96.0.6"})).is_err());
    assert!(cluster.create("x", node_port(1, 30053)).is_err());
    cluster.delete(&stored[1]);
    cluster.create("x", node_port(1, 30053)).unwrap();
}

#[test]
fn concurrent_creates_and_deletes_never_share() {
    let cluster = cluster(&["10.96.0.0/22"]);
    let kept: Vec<Value> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let cluster = &cluster;
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for i in 0..100 {
                        let spec = json!({"type": "NodePort", "ports": [{"port": 1}]});
                        let created = cluster.create(&format!("s-{worker}-{i}"), spec).unwrap();
                        if i % 2 == 0 {
                            kept.push(created);
                        } else {
                            cluster.delete(&created);
                        }
                    }
                    kept
                })
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    let ips: HashSet<String> = kept.iter().map(|s| s["spec"]["clusterIP"].to_string()).collect();
    let ports: HashSet<String> = kept
        .iter()
        .map(|s| s["spec"]["ports"][0]["nodePort"].to_string())
        .collect();
    assert_eq!((kept.len(), ips.len(), ports.len()), (400, 400, 400));
}
