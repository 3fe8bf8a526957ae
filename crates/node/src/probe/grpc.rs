//! gRPC health probes (`grpc.health.v1.Health/Check`), written out over HTTP/2: the messages are two fields.
//! Upstream: `pkg/probe/grpc`.

use super::{authority, connect};
use crate::kubelet::describe;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;

/// `UNIMPLEMENTED` in gRPC's numbering.
const UNIMPLEMENTED: &str = "12";

/// Asks for the health of a service; the empty name is the server as a whole.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, ask(host, port, service)).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "timeout: health rpc to service {:?} did not complete within {}s",
            authority(host, port),
            timeout.as_secs()
        )),
    }
}

async fn ask(host: &str, port: u16, service: &str) -> Result<(), String> {
    let stream = connect(host, port).await?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| describe(&error))?;
    let request = http::Request::post(format!(
        "http://{}/grpc.health.v1.Health/Check",
        authority(host, port)
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .header("user-agent", "kube-probe/1.36")
    .body(Full::new(encode(service)))
    .map_err(|error| describe(&error))?;
    let talk = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| describe(&error))?;
        let head = response.headers().clone();
        let collected = response
            .into_body()
            .collect()
            .await
            .map_err(|error| describe(&error))?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let text = |name: &str| {
            let value = trailers.get(name).or_else(|| head.get(name));
            value.and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
        };
        match text("grpc-status").as_str() {
            "" | "0" => verdict(&collected.to_bytes()),
            UNIMPLEMENTED => Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                text("grpc-message")
            )),
            code => Err(format!(
                "error: health rpc probe failed with code {code}: {}",
                text("grpc-message")
            )),
        }
    };
    tokio::pin!(talk);
    // Cancel-safe: both futures live here; a connection that ends first leaves the talk to report it.
    tokio::select! {
        result = &mut talk => result,
        _ = connection => talk.await,
    }
}

/// A length-prefixed `HealthCheckRequest { string service = 1 }`.
fn encode(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Reads a length-prefixed `HealthCheckResponse { ServingStatus status = 1 }`.
fn verdict(framed: &[u8]) -> Result<(), String> {
    let message = framed.get(5..).unwrap_or_default();
    let status = match message {
        [0x08, status, ..] => *status,
        _ => 0,
    };
    let name = match status {
        1 => return Ok(()),
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    };
    Err(format!("service unhealthy (responded with {name:?})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(encode("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(encode("db")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        assert_eq!(verdict(&[0, 0, 0, 0, 2, 0x08, 1]), Ok(()));
        assert_eq!(
            verdict(&[0, 0, 0, 0, 2, 0x08, 2]),
            Err("service unhealthy (responded with \"NOT_SERVING\")".into())
        );
        assert!(verdict(&[]).is_err());
    }
}
