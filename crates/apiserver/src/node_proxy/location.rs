//! Which path on the node a request about a pod goes to. Upstream: `pkg/registry/core/pod/strategy.go`.

use crate::plugin::Reader;
use crate::request::{Attributes, Body, query_pairs};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, FieldPath, GroupResource, Status};
use http::{HeaderValue, Response, StatusCode, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// The stored pod.
pub fn pod(namespace: &str, name: &str, reader: &dyn Reader) -> Result<Value, Status> {
    let pods = GroupResource::new("", "pods");
    reader
        .get(&pods, namespace, name)
        .ok_or_else(|| Status::not_found(&pods, name))
}

/// The node that the pod is on.
pub fn node_name(pod: &Value) -> Option<&str> {
    pod.str_at(&["spec", "nodeName"]).filter(|name| !name.is_empty())
}

/// The container that is meant: the named one, which must exist, or the only one.
pub fn container(pod: &Value, wanted: &str) -> Result<String, Status> {
    let names = |key: &str| -> Vec<&str> {
        let list = pod.at(&["spec", key]).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(|c| c.str_at(&["name"]))
            .collect()
    };
    let containers = names("containers");
    let all = [
        names("initContainers"),
        containers.clone(),
        names("ephemeralContainers"),
    ]
    .concat();
    let pod = pod.name();
    if !wanted.is_empty() {
        return if all.contains(&wanted) {
            Ok(wanted.to_owned())
        } else {
            Err(Status::bad_request(format!(
                "container {wanted} is not valid for pod {pod}"
            )))
        };
    }
    match &containers[..] {
        [only] => Ok((*only).to_owned()),
        [] => Err(Status::bad_request(format!(
            "a container name must be specified for pod {pod}"
        ))),
        _ => Err(Status::bad_request(format!(
            "a container name must be specified for pod {pod}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn with_query(path: String, parameters: &[(&str, String)]) -> String {
    let query: Vec<String> = parameters
        .iter()
        .map(|(key, value)| format!("{key}={}", encode(value)))
        .collect();
    if query.is_empty() {
        path
    } else {
        format!("{path}?{}", query.join("&"))
    }
}

fn is_true(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")
}

/// The path of a log, with the options that the query names.
pub fn logs(pod: &Value, uri: &Uri) -> Result<String, Status> {
    let mut wanted = String::new();
    let mut parameters: Vec<(&str, String)> = Vec::new();
    let mut errors = Vec::new();
    let mut since = 0;
    for (key, value) in query_pairs(uri) {
        let minimum = match key.as_str() {
            "container" => {
                wanted = value;
                continue;
            }
            "follow" | "previous" | "timestamps" => {
                let key = ["follow", "previous", "timestamps"]
                    .into_iter()
                    .find(|k| *k == key);
                if let Some(key) = key.filter(|_| is_true(&value)) {
                    parameters.push((key, "true".to_owned()));
                }
                continue;
            }
            "sinceTime" => {
                since += 1;
                parameters.push(("sinceTime", value));
                continue;
            }
            "stream" => {
                if !matches!(value.as_str(), "All" | "Stdout" | "Stderr") {
                    let field = FieldPath::new("stream");
                    errors.push(FieldError::not_supported(
                        &field,
                        value.as_str(),
                        &["All", "Stdout", "Stderr"],
                    ));
                }
                parameters.push(("stream", value));
                continue;
            }
            "tailLines" => ("tailLines", 0, "must be greater than or equal to 0"),
            "limitBytes" => ("limitBytes", 1, "must be greater than 0"),
            "sinceSeconds" => {
                since += 1;
                ("sinceSeconds", 1, "must be greater than 0")
            }
            _ => continue,
        };
        let (key, least, complaint) = minimum;
        let number: i64 = value.parse().map_err(|error| {
            Status::bad_request(format!(
                "unable to decode query parameter {key}={value:?}: {error}"
            ))
        })?;
        if number < least {
            errors.push(FieldError::invalid(&FieldPath::new(key), number, complaint));
        }
        parameters.push((key, value));
    }
    if since > 1 {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden(&FieldPath::new(""), detail));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", pod.name(), &errors));
    }
    let container = container(pod, &wanted)?;
    let path = format!("/containerLogs/{}/{}/{container}", pod.namespace(), pod.name());
    Ok(with_query(path, &parameters))
}

/// The path of `exec`, `attach` or `portforward`, with the kubelet's names of the options.
pub fn stream(pod: &Value, subresource: &str, uri: &Uri) -> Result<String, Status> {
    let (namespace, name) = (pod.namespace(), pod.name());
    let mut wanted = String::new();
    let mut parameters: Vec<(&str, String)> = Vec::new();
    let mut ports = Vec::new();
    for (key, value) in query_pairs(uri) {
        match key.as_str() {
            "container" => wanted = value,
            "stdin" if is_true(&value) => parameters.push(("input", "1".to_owned())),
            "stdout" if is_true(&value) => parameters.push(("output", "1".to_owned())),
            "stderr" if is_true(&value) => parameters.push(("error", "1".to_owned())),
            "tty" if is_true(&value) => parameters.push(("tty", "1".to_owned())),
            "command" if subresource == "exec" => parameters.push(("command", value)),
            "ports" => ports.push(value),
            _ => {}
        }
    }
    if subresource == "portforward" {
        let port = ports.join(",");
        let parameters: &[_] = if port.is_empty() { &[] } else { &[("port", port)] };
        return Ok(with_query(format!("/portForward/{namespace}/{name}"), parameters));
    }
    let container = container(pod, &wanted)?;
    let path = format!("/{subresource}/{namespace}/{name}/{container}");
    Ok(with_query(path, &parameters))
}

/// Splits the path of a proxied request after `/proxy`, as it was written: what the pod gets must not have been
/// decoded on the way.
pub fn proxied_path<'a>(attributes: &Attributes, uri: &'a Uri) -> (&'a str, &'a str) {
    let path = uri.path();
    // `/api/v1/nodes/N/proxy` or `/api/v1/namespaces/NS/pods/N/proxy`.
    let segments = if attributes.resource == "nodes" { 5 } else { 7 };
    let end = path
        .match_indices('/')
        .nth(segments)
        .map_or(path.len(), |(index, _)| index);
    path.split_at(end)
}

/// Relative links of a root page work only below a path that ends in a slash.
pub fn redirect_to_root(uri: &Uri) -> Response<Body> {
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let location = format!("{}/{query}", uri.path());
    let mut response = Response::new(crate::http::body::full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
