//! Makes one probe. Upstream: `pkg/kubelet/prober/prober.go`, `pkg/probe`.

mod exec;
mod grpc;
pub mod http;

use crate::kubelet::Kubelet;
use coracle_pods::container::probe_of;
use coracle_pods::prober::ProbeKind;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpStream;

pub use exec::run as exec;

/// How much of an answer is kept for messages.
const MAX_OUTPUT: usize = 10 * 1024;

/// Probes a running instance. The error is the probe's output.
pub async fn probe(
    kubelet: &Kubelet,
    container: &Container,
    id: &str,
    kind: ProbeKind,
    pod_ip: Option<IpAddr>,
    timeout: Duration,
) -> Result<(), String> {
    let Some(probe) = probe_of(container, kind) else {
        return Ok(());
    };
    let ip = || {
        pod_ip
            .map(|ip| ip.to_string())
            .ok_or_else(|| "the pod has no address".to_owned())
    };
    if let Some(action) = &probe.exec {
        let command = action.command.clone().unwrap_or_default();
        return exec::run(kubelet, id, command, timeout).await;
    }
    if let Some(action) = &probe.http_get {
        let request = http::Request::of(action, container, &ip()?, "kube-probe/1.36")?;
        return http::probe(&request, timeout).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.clone().filter(|h| !h.is_empty());
        let host = host.map_or_else(ip, Ok)?;
        return tcp(&host, port(&action.port, container)?, timeout).await;
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
        let service = action.service.as_deref().unwrap_or_default();
        return grpc::check(&ip()?, port, service, timeout).await;
    }
    Err("missing probe handler".to_owned())
}

/// A port by number, or by its name in the container.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports
                .find(|p| p.name.as_deref() == Some(name))
                .map(|p| p.container_port);
            match named.or_else(|| name.parse().ok()) {
                Some(number) => number,
                None => {
                    return Err(format!(
                        "couldn't find port: {name:?} in container {:?}",
                        container.name
                    ));
                }
            }
        }
    };
    match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("invalid port number: {number}")),
    }
}

/// `host:port`, with brackets where needed.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Connects; the error is in the words of Go's `net` package, which people search for.
async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let address = authority(host, port);
    TcpStream::connect(&address)
        .await
        .map_err(|error| format!("dial tcp {address}: {}", in_words_of_go(&error, "connect")))
}

fn in_words_of_go(error: &std::io::Error, operation: &str) -> String {
    use std::io::ErrorKind;
    let text = match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::ConnectionReset => "connection reset by peer",
        ErrorKind::HostUnreachable => "no route to host",
        ErrorKind::NetworkUnreachable => "network is unreachable",
        ErrorKind::UnexpectedEof => return "EOF".to_owned(),
        ErrorKind::TimedOut => return "i/o timeout".to_owned(),
        _ => return error.to_string(),
    };
    format!("{operation}: {text}")
}

async fn tcp(host: &str, port: u16, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, connect(host, port)).await {
        Ok(result) => result.map(|_| ()),
        Err(_) => Err(format!("dial tcp {}: i/o timeout", authority(host, port))),
    }
}

#[cfg(test)]
mod tests;
