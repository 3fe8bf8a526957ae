//! Where a node, a pod or a Service is reached. Upstream: `pkg/kubelet/client`, `ResourceLocation` of
//! `pkg/registry/core/{node,pod,service}`.

use super::location;
use crate::plugin::Reader;
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, Status};
use rand::seq::IndexedRandom;
use serde_json::Value;
use std::net::IpAddr;

/// The port of the kubelet's API where the node names none.
const DEFAULT_NODE_PORT: u16 = 10250;

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Plain,
    /// TLS to a node: its certificate is verified, ours is shown.
    Node,
    /// TLS to a pod, whose certificate nobody knows.
    Unverified,
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How it is protected.
    pub security: Security,
}

impl Target {
    /// `HOST:PORT`, the host in brackets where it has colons.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn unavailable(message: String) -> Status {
    Status::failure(503, "ServiceUnavailable", message)
}

/// The kubelet's API of a node.
pub fn node(name: &str, reader: &dyn Reader) -> Result<Target, Status> {
    let nodes = GroupResource::new("", "nodes");
    let node = reader
        .get(&nodes, "", name)
        .ok_or_else(|| Status::not_found(&nodes, name))?;
    let addresses = node.at(&["status", "addresses"]).and_then(Value::as_array);
    let host = ["InternalIP", "ExternalIP", "Hostname"]
        .iter()
        .find_map(|wanted| {
            let mut all = addresses.into_iter().flatten();
            let found = all.find(|a| a.str_at(&["type"]) == Some(wanted))?;
            found.str_at(&["address"])
        });
    let host = host.ok_or_else(|| {
        let error = format!(
            "no preferred addresses found; known addresses: {}",
            addresses.map_or(0, Vec::len)
        );
        Status::failure(500, "", error)
    })?;
    let port = node
        .int_at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"])
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0);
    Ok(Target {
        host: host.to_owned(),
        port: port.unwrap_or(DEFAULT_NODE_PORT),
        security: Security::Node,
    })
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
struct Id<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

fn parse_id<'a>(kind: &str, id: &'a str) -> Result<Id<'a>, Status> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts[..] {
        [name] => ("", name, ""),
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => ("?", "", ""),
    };
    if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
        return Err(Status::bad_request(format!("invalid {kind} request {id:?}")));
    }
    Ok(Id { scheme, name, port })
}

fn security(scheme: &str) -> Security {
    if scheme == "https" {
        Security::Unverified
    } else {
        Security::Plain
    }
}

/// The API server must not be a way into its own machine or to the metadata services of clouds.
fn is_proxyable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            !(a.is_unspecified()
                || a.is_loopback()
                || a.is_link_local()
                || a.is_multicast()
                || a.is_broadcast())
        }
        IpAddr::V6(a) => {
            !(a.is_unspecified() || a.is_loopback() || a.is_unicast_link_local() || a.is_multicast())
        }
    }
}

fn check_address(host: &str) -> Result<(), Status> {
    match host.parse() {
        Ok(address) if is_proxyable(address) => Ok(()),
        _ => Err(Status::bad_request("address not allowed")),
    }
}

fn port_number(kind: &str, id: &str, port: &str) -> Result<u16, Status> {
    port.parse()
        .map_err(|_| Status::bad_request(format!("invalid {kind} request {id:?}")))
}

/// `nodes/ID/proxy`: the kubelet's API, or another port of the node.
pub fn proxied_node(id: &str, reader: &dyn Reader) -> Result<Target, Status> {
    let Id { scheme, name, port } = parse_id("node", id)?;
    let kubelet = node(name, reader)?;
    check_address(&kubelet.host)?;
    if port.is_empty() || port == kubelet.port.to_string() {
        return Ok(kubelet);
    }
    Ok(Target {
        port: port_number("node", id, port)?,
        security: security(scheme),
        ..kubelet
    })
}

/// `pods/ID/proxy`: the named port, or the first that the pod declares.
pub fn pod(namespace: &str, id: &str, reader: &dyn Reader) -> Result<Target, Status> {
    let Id { scheme, name, port } = parse_id("pod", id)?;
    let pod = location::pod(namespace, name, reader)?;
    let declared = || {
        let containers = pod.at(&["spec", "containers"])?.as_array()?;
        let mut ports = containers
            .iter()
            .filter_map(|c| c.at(&["ports"])?.get(0)?.int_at(&["containerPort"]));
        ports.next().and_then(|port| u16::try_from(port).ok())
    };
    let security = security(scheme);
    let default = if security == Security::Plain { 80 } else { 443 };
    let port = if port.is_empty() {
        declared().unwrap_or(default)
    } else {
        port_number("pod", id, port)?
    };
    let host = pod_ips(&pod).next().unwrap_or_default().to_owned();
    check_address(&host)?;
    Ok(Target { host, port, security })
}

fn pod_ips(pod: &Value) -> impl Iterator<Item = &str> {
    let ips = pod.at(&["status", "podIPs"]).and_then(Value::as_array);
    ips.into_iter().flatten().filter_map(|ip| ip.str_at(&["ip"]))
}

/// `services/ID/proxy`: a random ready endpoint that is a pod of the Service's namespace.
pub fn service(namespace: &str, id: &str, reader: &dyn Reader) -> Result<Target, Status> {
    let Id { scheme, name, port } = parse_id("service", id)?;
    let mut port_name = port.to_owned();
    if let Ok(number) = port.parse::<i64>() {
        let services = GroupResource::new("", "services");
        let service = reader
            .get(&services, namespace, name)
            .ok_or_else(|| Status::not_found(&services, name))?;
        let ports = service.at(&["spec", "ports"]).and_then(Value::as_array);
        let found = ports
            .into_iter()
            .flatten()
            .find(|p| p.int_at(&["port"]) == Some(number));
        let found = found
            .ok_or_else(|| unavailable(format!("no service port {number} found for service {name:?}")))?;
        port_name = found.str_at(&["name"]).unwrap_or_default().to_owned();
    }
    let endpoints = GroupResource::new("", "endpoints");
    let object = reader
        .get(&endpoints, namespace, name)
        .ok_or_else(|| Status::not_found(&endpoints, name))?;
    let subsets = object.get("subsets").and_then(Value::as_array);
    if subsets.is_none_or(Vec::is_empty) {
        return Err(unavailable(format!(
            "no endpoints available for service {name:?}"
        )));
    }
    let mut candidates: Vec<(String, u16)> = Vec::new();
    for subset in subsets.into_iter().flatten() {
        let list = |key: &str| subset.get(key).and_then(Value::as_array).into_iter().flatten();
        let port = list("ports").find(|p| p.str_at(&["name"]).unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|p| u16::try_from(p.int_at(&["port"])?).ok()) else {
            continue;
        };
        let pods = list("addresses").filter(|address| is_pod(address, namespace, reader));
        candidates.extend(pods.filter_map(|a| Some((a.str_at(&["ip"])?.to_owned(), port))));
    }
    let (host, port) = candidates
        .choose(&mut rand::rng())
        .cloned()
        .ok_or_else(|| unavailable(format!("no endpoints available for service {id:?}")))?;
    Ok(Target {
        host,
        port,
        security: security(scheme),
    })
}

/// Endpoints can be written by users: only addresses that a pod of the same namespace has are followed.
fn is_pod(address: &Value, namespace: &str, reader: &dyn Reader) -> bool {
    let text = |path: &[&str]| address.str_at(path).unwrap_or_default().to_owned();
    let ip = text(&["ip"]);
    text(&["targetRef", "namespace"]) == namespace
        && location::pod(namespace, &text(&["targetRef", "name"]), reader)
            .is_ok_and(|pod| pod_ips(&pod).any(|pod_ip| pod_ip == ip))
}
