//! One GET, and the answer as `curl -i` shows it.

use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

/// How long after a refusal the next attempt comes.
const RETRY: Duration = Duration::from_millis(1);

/// Status line, headers and body of `GET path`. While the connection is refused it tries again, as
/// `curl --retry-connrefused` does: a Service refuses until its first endpoint is there.
pub async fn get(address: SocketAddr, path: &str) -> Result<String> {
    timeout(PATIENCE, fetch(address, path))
        .await
        .with_context(|| format!("http://{address}{path} did not answer"))?
        .with_context(|| format!("cannot get http://{address}{path}"))
}

async fn fetch(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = loop {
        match TcpStream::connect(address).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => sleep(RETRY).await,
            connected => break connected?,
        }
    };
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            bail!("the connection ended early");
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse::<usize>().ok());
        if length.is_none_or(|length| body.len() >= length) {
            return Ok(text.replace('\r', ""));
        }
    }
}
