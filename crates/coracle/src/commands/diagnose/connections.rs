//! Real TCP connections from the client's network namespace, all at once, each closed as soon as it is accepted.

use super::node::Place;
use coracle_diagnose::{Attempt, Connected, Connection};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// How long an answer may take: twice the time after which the kernel sends the first packet again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tries all of them.
pub async fn try_all(place: &Place, attempts: Vec<Attempt>) -> Vec<Connection> {
    let tried = attempts.into_iter().map(|attempt| async move {
        Connection {
            port: attempt.port,
            via: attempt.via,
            to: attempt.to,
            outcome: connect(place, attempt.to).await,
        }
    });
    futures::future::join_all(tried).await
}

/// Tries one.
async fn connect(place: &Place, to: SocketAddr) -> Connected {
    let socket = match socket(place, to) {
        Ok(socket) => socket,
        Err(why) => return Connected::Failed(why),
    };
    let begin = Instant::now();
    match timeout(PATIENCE, socket.connect(to)).await {
        Ok(Ok(_)) => Connected::Accepted(begin.elapsed()),
        Ok(Err(error))
            if matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
            ) =>
        {
            Connected::Refused(begin.elapsed())
        }
        Ok(Err(error)) => Connected::Failed(error.to_string()),
        Err(_) => Connected::TimedOut(PATIENCE),
    }
}

/// A socket stays in the namespace that it was made in.
fn socket(place: &Place, to: SocketAddr) -> Result<TcpSocket, String> {
    let made = place.run(|| {
        if to.is_ipv6() {
            TcpSocket::new_v6()
        } else {
            TcpSocket::new_v4()
        }
    })?;
    made.map_err(|error| error.to_string())
}
