//! Names that are not the cluster's: asked of the host's own resolvers.

use rand::Rng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one resolver is given before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const LARGEST_UDP: usize = 4096;

/// The host's resolvers, in order.
#[derive(Debug, Clone, Default)]
pub struct Forwarder {
    resolvers: Vec<SocketAddr>,
}

impl Forwarder {
    /// Reads the `nameserver` lines of a resolv.conf; `own` is left out, or a query would go round for ever.
    pub fn from_resolv_conf(text: &str, own: IpAddr) -> Self {
        let resolvers = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"))
            .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
            .filter(|address| *address != own)
            .map(|address| SocketAddr::new(address, 53))
            .collect();
        Self { resolvers }
    }

    /// Asks these resolvers.
    pub fn new(resolvers: Vec<SocketAddr>) -> Self {
        Self { resolvers }
    }

    /// Sends the query on and returns the first answer; absent when no resolver answered.
    pub async fn ask(&self, query: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        for resolver in &self.resolvers {
            let attempt = async {
                if over_tcp {
                    ask_tcp(*resolver, query).await
                } else {
                    ask_udp(*resolver, query).await
                }
            };
            match timeout(PATIENCE, attempt).await {
                Ok(Ok(reply)) => return Some(reply),
                Ok(Err(error)) => tracing::debug!(%resolver, %error, "resolver failed"),
                Err(_) => tracing::debug!(%resolver, "resolver timed out"),
            }
        }
        None
    }
}

/// A new socket (so a new random port) and a new random id for each query: an answer cannot be guessed.
async fn ask_udp(resolver: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = if resolver.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    let id = rand::rng().random::<u16>().to_be_bytes();
    socket.send(&with_id(query, id)).await?;
    let mut buffer = vec![0; LARGEST_UDP];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if length >= 12 && buffer[..2] == id {
            buffer.truncate(length);
            return Ok(with_id(&buffer, [query[0], query[1]]));
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(query.len()).map_err(std::io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], query].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

fn with_id(message: &[u8], id: [u8; 2]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[..2].copy_from_slice(&id);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_address_is_never_asked() {
        let own: IpAddr = "10.96.0.10".parse().expect("address");
        let text = "# comment\nnameserver 10.96.0.10\nsearch x\nnameserver 127.0.0.53\nnameserver bad\n";
        let forwarder = Forwarder::from_resolv_conf(text, own);
        assert_eq!(forwarder.resolvers, ["127.0.0.53:53".parse().expect("address")]);
    }
}
