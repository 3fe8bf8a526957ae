//! A daemon's connection to the shim of a pod: requests and answers, and what the shim tells on its own.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::pod::Pod;
use crate::shim::protocol::{self, Answer, Call, Inbox, Message, Request};

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The shim is gone.
    Gone,
    /// The shim said no.
    Refused(String),
}

type Answered = Result<(Answer, Vec<OwnedFd>), String>;

/// An open connection. A task of its own reads and writes; it ends when the shim or every handle is gone.
#[derive(Debug)]
pub(super) struct Connection {
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    last_id: AtomicU64,
    waiting: Mutex<Waiting>,
    gone: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The shim is gone: there will be no answers.
    closed: bool,
    answers: HashMap<u64, (oneshot::Sender<Answered>, Option<String>)>,
    execs: HashMap<u64, oneshot::Sender<i32>>,
}

impl Connection {
    /// Speaks to a shim over `socket`. `pod` is told of what happens; `ready` gets the shim's first message if it is a
    /// new shim.
    pub(super) fn open(
        socket: OwnedFd,
        pod: &Arc<Pod>,
        ready: Option<oneshot::Sender<Result<i32, String>>>,
    ) -> io::Result<Arc<Self>> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let socket = UnixStream::from_std(socket)?;
        let (outgoing, frames) = mpsc::unbounded_channel();
        let (gone_sender, gone) = watch::channel(false);
        let connection = Arc::new(Self {
            outgoing,
            last_id: AtomicU64::new(0),
            waiting: Mutex::default(),
            gone,
        });
        let (weak, pod) = (Arc::downgrade(&connection), pod.clone());
        tokio::spawn(async move {
            let handle = |message, inbox: &mut Inbox, ready: &mut Option<_>| match weak.upgrade() {
                Some(connection) => connection.handle(&pod, message, inbox, ready),
                None => Ok(()),
            };
            if let Err(error) = transfer(&socket, frames, ready, handle).await
                && error.kind() != io::ErrorKind::UnexpectedEof
            {
                tracing::warn!(pod = pod.spec.uid, %error, "connection to shim failed");
            }
            if let Some(connection) = weak.upgrade() {
                let mut waiting = connection.waiting.lock();
                *waiting = Waiting {
                    closed: true,
                    ..Waiting::default()
                };
            }
            pod.shim_gone().await;
            let _ = gone_sender.send(true);
        });
        Ok(connection)
    }

    /// Asks the shim for something. When the caller goes away, what was asked for is done all the same.
    pub(super) async fn call(&self, call: Call) -> Result<(Answer, Vec<OwnedFd>), Failed> {
        let (sender, answer) = oneshot::channel();
        let id = self.next_id();
        let container = match &call {
            Call::Start { container } => Some(container.clone()),
            _ => None,
        };
        {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return Err(Failed::Gone);
            }
            waiting.answers.insert(id, (sender, container));
        }
        self.send(&Request { id, call })?;
        match answer.await {
            Ok(answer) => answer.map_err(Failed::Refused),
            Err(_) => Err(Failed::Gone),
        }
    }

    /// Asks for something without waiting for the answer.
    pub(super) fn cast(&self, call: Call) {
        // A shim that is gone has nothing left to do.
        let _ = self.send(&Request {
            id: self.next_id(),
            call,
        });
    }

    fn send(&self, request: &Request) -> Result<(), Failed> {
        let frame = protocol::encode(request).map_err(|error| Failed::Refused(error.to_string()))?;
        self.outgoing.send(frame).map_err(|_| Failed::Gone)
    }

    /// A number nobody has on this connection.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The exit code of a process that will be run under this number.
    pub(super) fn expect_exec(&self, exec: u64) -> oneshot::Receiver<i32> {
        let (sender, code) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if !waiting.closed {
            waiting.execs.insert(exec, sender);
        }
        code
    }

    pub(super) fn forget_exec(&self, exec: u64) {
        self.waiting.lock().execs.remove(&exec);
    }

    /// Waits until the shim is gone and the pod knows.
    pub(super) async fn closed(&self) {
        // An error means that the task has ended, which is the same.
        let _ = self.gone.clone().wait_for(|gone| *gone).await;
    }

    fn handle(
        &self,
        pod: &Pod,
        message: Message,
        inbox: &mut Inbox,
        ready: &mut Option<oneshot::Sender<Result<i32, String>>>,
    ) -> io::Result<()> {
        // Who waited may be gone: then nobody wants to know.
        match message {
            Message::Ready { shim_pid } => {
                pod.set_shim_pid(shim_pid);
                let _ = ready.take().map(|ready| ready.send(Ok(shim_pid)));
            }
            Message::Failed { reason } => {
                let _ = ready.take().map(|ready| ready.send(Err(reason)));
            }
            Message::Answer { id, result } => {
                let mut fds = Vec::new();
                if let Ok(Answer::Streams {
                    stdin,
                    stdout,
                    stderr,
                    ..
                }) = &result
                {
                    for _ in [stdin, stdout, stderr].into_iter().filter(|present| **present) {
                        fds.push(inbox.next_fd()?);
                    }
                }
                let waiting = self.waiting.lock().answers.remove(&id);
                let container = waiting.as_ref().and_then(|(_, container)| container.as_deref());
                // Here and not where the answer is awaited, or a later message could overtake it.
                pod.answered(container, &result);
                if let Some((sender, _)) = waiting {
                    let _ = sender.send(result.map(|answer| (answer, fds)));
                }
            }
            Message::Started {
                container,
                pid,
                started_at,
            } => pod.started(&container, pid, started_at),
            Message::Exited { container, exit } => pod.exited(&container, exit),
            Message::ExecExited { exec, code } => {
                if let Some(sender) = self.waiting.lock().execs.remove(&exec) {
                    let _ = sender.send(code);
                }
            }
        }
        Ok(())
    }
}

impl From<Failed> for String {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Gone => "the shim is gone".to_owned(),
            Failed::Refused(reason) => reason,
        }
    }
}

/// Moves frames both ways until the shim is gone (an error) or nobody holds the connection any more.
async fn transfer<R>(
    socket: &UnixStream,
    mut frames: mpsc::UnboundedReceiver<Vec<u8>>,
    mut ready_sender: R,
    handle: impl Fn(Message, &mut Inbox, &mut R) -> io::Result<()>,
) -> io::Result<()> {
    let mut inbox = Inbox::default();
    let mut outbox: VecDeque<u8> = VecDeque::new();
    loop {
        // Cancel-safe: receiving from a channel and waiting for readiness lose nothing; what is read or written is read
        // or written after the choice.
        tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => outbox.extend(frame),
                None => return Ok(()),
            },
            ready = socket.readable() => {
                ready?;
                match socket.try_io(Interest::READABLE, || inbox.receive(socket)) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => {
                        while let Some(message) = inbox.next()? {
                            handle(message, &mut inbox, &mut ready_sender)?;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            ready = socket.writable(), if !outbox.is_empty() => {
                ready?;
                match socket.try_io(Interest::WRITABLE, || protocol::send(socket, outbox.make_contiguous(), &[])) {
                    Ok(sent) => drop(outbox.drain(..sent)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}
