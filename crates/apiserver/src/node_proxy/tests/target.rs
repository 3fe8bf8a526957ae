use super::super::target::*;
use crate::fake_reader::FakeReader;
use serde_json::json;

fn cluster() -> FakeReader {
    let reader = FakeReader::default();
    reader.put(
        "",
        "nodes",
        json!({"metadata": {"name": "n"}, "status": {"addresses": [
            {"type": "Hostname", "address": "n.example"}, {"type": "InternalIP", "address": "10.0.0.5"},
        ]}}),
    );
    reader.put("", "nodes", json!({"metadata": {"name": "local"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}}));
    let pod = |name: &str, ip: &str| {
        json!({"metadata": {"namespace": "d", "name": name},
        "spec": {"containers": [{}, {"ports": [{"containerPort": 8080}]}]}, "status": {"podIPs": [{"ip": ip}]}})
    };
    reader.put("", "pods", pod("web", "10.244.0.2"));
    reader.put("", "pods", pod("evil", "169.254.169.254"));
    reader.put("", "services", json!({"metadata": {"namespace": "d", "name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}}));
    let address = |ip: &str, pod: &str| json!({"ip": ip, "targetRef": {"namespace": "d", "name": pod}});
    reader.put(
        "",
        "endpoints",
        json!({"metadata": {"namespace": "d", "name": "web"}, "subsets": [{
            "addresses": [address("10.244.0.2", "web"), address("10.0.0.1", "web"), {"ip": "10.0.0.2"}],
            "ports": [{"name": "http", "port": 8080}],
        }]}),
    );
    reader.put(
        "",
        "endpoints",
        json!({"metadata": {"namespace": "d", "name": "empty"}}),
    );
    reader
}

fn at(host: &str, port: u16, security: Security) -> Target {
    Target {
        host: host.to_owned(),
        port,
        security,
    }
}

#[test]
fn nodes() {
    let reader = cluster();
    assert_eq!(node("n", &reader).unwrap(), at("10.0.0.5", 10250, Security::Node));
    assert_eq!(node("gone", &reader).unwrap_err().code, 404);
    assert_eq!(
        proxied_node("n:10250", &reader).unwrap(),
        at("10.0.0.5", 10250, Security::Node)
    );
    assert_eq!(
        proxied_node("https:n:443", &reader).unwrap(),
        at("10.0.0.5", 443, Security::Unverified)
    );
    assert_eq!(
        proxied_node("local", &reader).unwrap_err().message,
        "address not allowed"
    );
    assert_eq!(
        proxied_node("ftp:n:1", &reader).unwrap_err().message,
        r#"invalid node request "ftp:n:1""#
    );
}

#[test]
fn pods() {
    let reader = cluster();
    assert_eq!(
        pod("d", "web", &reader).unwrap(),
        at("10.244.0.2", 8080, Security::Plain)
    );
    assert_eq!(
        pod("d", "https:web:9443", &reader).unwrap(),
        at("10.244.0.2", 9443, Security::Unverified)
    );
    assert_eq!(
        pod("d", "evil", &reader).unwrap_err().message,
        "address not allowed"
    );
    assert_eq!(pod("d", "gone", &reader).unwrap_err().code, 404);
}

#[test]
fn services_lead_to_pods_only() {
    let reader = cluster();
    for id in ["web:80", "web:http", "http:web:http"] {
        assert_eq!(
            service("d", id, &reader).unwrap(),
            at("10.244.0.2", 8080, Security::Plain),
            "{id}"
        );
    }
    let message = |id: &str| service("d", id, &reader).unwrap_err().message;
    assert_eq!(message("web:81"), r#"no service port 81 found for service "web""#);
    assert_eq!(
        message("web:other"),
        r#"no endpoints available for service "web:other""#
    );
    assert_eq!(message("empty"), r#"no endpoints available for service "empty""#);
    assert_eq!(service("d", "gone", &reader).unwrap_err().code, 404);
}
