//! One resolver, and a group of them: the first that answers wins, and who does not answer is asked last.

use crate::name::Name;
use crate::query::Question;
use crate::record_type::{HINFO, code};
use crate::records::Answered;
use crate::reply;
use parking_lot::Mutex;
use rand::Rng;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How long one resolver is waited for before the next is asked as well. It may still win.
const HEDGE: Duration = Duration::from_millis(750);
/// How long all of them together are waited for: less than the five seconds of a client.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long who did not answer is asked last.
const SUSPICION: Duration = Duration::from_secs(10);
/// How long who forwards to us is not asked at all.
const EXCLUSION: Duration = Duration::from_secs(300);
/// Over UDP.
const LONGEST_ANSWER: usize = 4096;
/// A lost packet is sent again if there are few resolvers.
const ATTEMPTS: usize = 3;

/// A resolver.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub address: SocketAddr,
    /// A name that nobody but us knows: who asks us for it has it from this resolver.
    pub probe: Name,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    suspected_until: Option<Instant>,
    excluded_until: Option<Instant>,
}

impl Upstream {
    pub fn new(address: SocketAddr) -> Self {
        // Two labels, for a resolver may keep single ones to itself.
        let probe = format!("{:016x}.{:016x}", rand::random::<u64>(), rand::random::<u64>());
        Self {
            address,
            probe: Name::parse(&probe).expect("two labels of hexadecimal digits are a name"),
            health: Mutex::default(),
        }
    }

    /// Does not ask it for a while: it asks us what we ask it.
    pub fn exclude(&self) {
        self.health.lock().excluded_until = Some(Instant::now() + EXCLUSION);
    }

    pub fn is_excluded(&self, now: Instant) -> bool {
        self.health.lock().excluded_until.is_some_and(|until| now < until)
    }

    fn is_suspected(&self, now: Instant) -> bool {
        self.health
            .lock()
            .suspected_until
            .is_some_and(|until| now < until)
    }

    fn suspect(&self) {
        self.health.lock().suspected_until = Some(Instant::now() + SUSPICION);
    }

    fn trust(&self) {
        self.health.lock().suspected_until = None;
    }

    /// Asks it for the name that must not come back, if it is on this host. It does not matter what it answers.
    pub async fn look_for_loop(&self) {
        let question = Question {
            name: self.probe,
            record_type: HINFO,
            dnssec_ok: false,
            checking_disabled: false,
        };
        if let Err(error) = tell_if_local(self.address, &question).await {
            tracing::debug!(resolver = %self.address, %error, "resolver cannot be tested for a loop");
        }
    }

    async fn ask(&self, question: &Question) -> io::Result<Answered> {
        let mut answered = ask_udp(self.address, question, true).await?;
        if answered.response_code == code::FORM_ERR {
            // It may be so old that it does not know EDNS.
            answered = ask_udp(self.address, question, false).await?;
        }
        if answered.truncated {
            answered = ask_tcp(self.address, question).await?;
        }
        Ok(answered)
    }
}

/// Resolvers for the same names.
#[derive(Debug)]
pub(crate) struct Group {
    pub upstreams: Vec<Arc<Upstream>>,
}

impl Group {
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let upstreams = addresses
            .into_iter()
            .map(|address| Arc::new(Upstream::new(address)));
        Self {
            upstreams: upstreams.collect(),
        }
    }

    /// Nobody in it has answered lately.
    pub fn is_down(&self, now: Instant) -> bool {
        self.upstreams
            .iter()
            .all(|upstream| upstream.is_excluded(now) || upstream.is_suspected(now))
    }

    /// The first answer; a resolver's refusal if that is all that came; absent if nothing came.
    pub async fn ask(&self, question: &Question) -> Option<Answered> {
        let deadline = Instant::now() + PATIENCE;
        let order = self.order(Instant::now());
        let mut unasked = order.iter();
        let mut running = JoinSet::new();
        let mut silent: Vec<(Arc<Upstream>, Instant)> = Vec::new();
        let (mut attempts, mut timed_out) = (0, false);
        let mut refusal = None;
        loop {
            let again = || {
                silent
                    .first()
                    .filter(|_| timed_out && attempts < ATTEMPTS)
                    .map(|(upstream, _)| upstream)
            };
            if let Some(upstream) = unasked.next().or_else(again).cloned() {
                attempts += 1;
                if !silent.iter().any(|(other, _)| Arc::ptr_eq(other, &upstream)) {
                    silent.push((upstream.clone(), Instant::now()));
                }
                let question = *question;
                running.spawn(async move { (upstream.ask(&question).await, upstream) });
            } else if running.is_empty() {
                return refusal;
            }
            let more = unasked.len() > 0 || attempts < ATTEMPTS;
            let patience = if more {
                deadline.min(Instant::now() + HEDGE)
            } else {
                deadline
            };
            // Cancel-safe: neither `join_next` nor a timer loses anything.
            let joined = tokio::select! {
                Some(joined) = running.join_next() => joined,
                () = sleep_until(patience) => {
                    timed_out = true;
                    if patience < deadline {
                        continue;
                    }
                    silent.iter().for_each(|(upstream, _)| upstream.suspect());
                    return refusal;
                }
            };
            timed_out = false;
            let Ok((answered, upstream)) =
                joined.inspect_err(|error| tracing::error!(%error, "a question failed"))
            else {
                continue;
            };
            silent.retain(|(other, _)| !Arc::ptr_eq(other, &upstream));
            match answered {
                Ok(answered) if matches!(answered.response_code, code::NO_ERROR | code::NX_DOMAIN) => {
                    upstream.trust();
                    let late = silent.iter().filter(|(_, since)| since.elapsed() >= HEDGE);
                    late.for_each(|(other, _)| other.suspect());
                    return Some(answered);
                }
                // It is there, and another may know more.
                Ok(answered) => {
                    upstream.trust();
                    refusal = Some(answered);
                }
                Err(error) => {
                    tracing::debug!(resolver = %upstream.address, %error, "resolver failed");
                    upstream.suspect();
                }
            }
        }
    }

    fn order(&self, now: Instant) -> Vec<Arc<Upstream>> {
        let mut order: Vec<_> = self
            .upstreams
            .iter()
            .filter(|u| !u.is_excluded(now))
            .cloned()
            .collect();
        order.sort_by_key(|upstream| upstream.is_suspected(now));
        order
    }
}

/// A new socket (so a new random port) and a new random id for each question: an answer cannot be guessed.
async fn ask_udp(resolver: SocketAddr, question: &Question, with_edns: bool) -> io::Result<Answered> {
    let socket = connect(resolver).await?;
    let id = rand::rng().random();
    let mut buffer = Vec::with_capacity(512);
    reply::question(&mut buffer, id, question, with_edns);
    socket.send(&buffer).await?;
    // More than was offered: not everybody keeps to that.
    buffer.resize(LONGEST_ANSWER, 0);
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else is somebody's guess.
        if let Ok(answered) = Answered::read(&buffer[..length], id, question) {
            return Ok(answered);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, question: &Question) -> io::Result<Answered> {
    let mut stream = TcpStream::connect(resolver).await?;
    let id = rand::rng().random();
    let mut buffer = Vec::new();
    reply::question(&mut buffer, id, question, true);
    let length = u16::try_from(buffer.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], &buffer].concat())
        .await?;
    let length = stream.read_u16().await?;
    buffer.resize(usize::from(length), 0);
    stream.read_exact(&mut buffer).await?;
    Answered::read(&buffer, id, question).map_err(io::Error::other)
}

/// Sends a question to a resolver of this host and does not wait for the answer. Others are not asked.
async fn tell_if_local(resolver: SocketAddr, question: &Question) -> io::Result<()> {
    let socket = connect(resolver).await?;
    // To one of its own addresses the host speaks from the same one, or over loopback.
    let from = socket.local_addr()?.ip();
    if from != resolver.ip() && !from.is_loopback() {
        return Ok(());
    }
    let mut message = Vec::new();
    reply::question(&mut message, rand::rng().random(), question, false);
    socket.send(&message).await.map(drop)
}

async fn connect(resolver: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if resolver.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    Ok(socket)
}
