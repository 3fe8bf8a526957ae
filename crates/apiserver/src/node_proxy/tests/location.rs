use super::super::location::*;
use crate::request::{Attributes, UserInfo};
use http::Method;
use serde_json::{Value, json};

fn pod(containers: &[&str]) -> Value {
    let list = |names: &[&str]| -> Vec<Value> { names.iter().map(|n| json!({"name": n})).collect() };
    json!({
        "metadata": {"namespace": "d", "name": "p"},
        "spec": {"containers": list(containers), "initContainers": list(&["init"])},
    })
}

#[test]
fn which_container() {
    assert_eq!(container(&pod(&["a"]), "").unwrap(), "a");
    assert_eq!(container(&pod(&["a", "b"]), "b").unwrap(), "b");
    assert_eq!(container(&pod(&["a"]), "init").unwrap(), "init");
    let message = |pod: &Value, wanted: &str| container(pod, wanted).unwrap_err().message;
    assert_eq!(
        message(&pod(&["db", "api"]), ""),
        "a container name must be specified for pod p, choose one of: [init db api]"
    );
    assert_eq!(message(&pod(&["a"]), "x"), "container x is not valid for pod p");
    assert_eq!(
        message(&pod(&[]), ""),
        "a container name must be specified for pod p"
    );
}

#[test]
fn log_options() {
    let ask = |query: &str| logs(&pod(&["a"]), &format!("/x?{query}").parse().unwrap());
    assert_eq!(ask("").unwrap(), "/containerLogs/d/p/a");
    assert_eq!(
        ask("follow=false&previous=true&timestamps=1&sinceTime=2026-01-01T00:00:00Z&pretty=x").unwrap(),
        "/containerLogs/d/p/a?previous=true&timestamps=true&sinceTime=2026%2D01%2D01T00%3A00%3A00Z"
    );
    let message = |query: &str| ask(query).unwrap_err().message;
    assert_eq!(
        message("tailLines=-1"),
        r#"PodLogOptions "p" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"#
    );
    assert!(message("sinceSeconds=5&sinceTime=x").contains("at most one of `sinceTime` or `sinceSeconds`"));
    assert!(message("limitBytes=0").contains("must be greater than 0"));
    assert_eq!(ask("tailLines=x").unwrap_err().code, 400);
}

#[test]
fn streams() {
    let ask = |subresource: &str, query: &str| {
        stream(&pod(&["a"]), subresource, &format!("/x?{query}").parse().unwrap())
    };
    assert_eq!(
        ask("attach", "stdin=true&tty=true&stderr=false").unwrap(),
        "/attach/d/p/a?input=1&tty=1"
    );
    assert_eq!(
        ask("exec", "command=a%20b&command=%26").unwrap(),
        "/exec/d/p/a?command=a%20b&command=%26"
    );
    assert_eq!(
        ask("portforward", "ports=80&ports=81").unwrap(),
        "/portForward/d/p?port=80%2C81"
    );
    assert_eq!(ask("portforward", "").unwrap(), "/portForward/d/p");
}

#[test]
fn proxied_paths_stay_as_written() {
    let split = |uri: &str| {
        let uri = uri.parse().unwrap();
        let attributes = Attributes::parse(UserInfo::default(), &Method::GET, &uri);
        let (prefix, rest) = proxied_path(&attributes, &uri);
        (prefix.to_owned(), rest.to_owned())
    };
    let own = |prefix: &str, rest: &str| (prefix.to_owned(), rest.to_owned());
    let service = "/api/v1/namespaces/d/services/http:web:80/proxy";
    assert_eq!(split(&format!("{service}/a%2Fb/?q")), own(service, "/a%2Fb/"));
    assert_eq!(split(service), own(service, ""));
    assert_eq!(
        split("/api/v1/nodes/n/proxy/healthz"),
        own("/api/v1/nodes/n/proxy", "/healthz")
    );
}
