//! The shim of one pod: the loop that waits for requests, output and ends of processes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use coracle_kernel::cgroup::{Group, Hierarchy};
use coracle_kernel::mount;
use coracle_kernel::process as kernel;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitStatus};

use super::client::Client;
use super::container::{Container, Phase};
use super::exec::Exec;
use super::protocol::{Answer, Message};
use super::{namespaces, with_socket_path};
use crate::launch;
use crate::record::{self, PodDirectory, PodRecord};

/// As much as a pipe holds by default.
const BUFFER: usize = 64 * 1024;

/// A pod.
pub(super) struct Pod {
    pub(super) directory: PodDirectory,
    pub(super) record: PodRecord,
    pub(super) hierarchy: Hierarchy,
    listener: UnixListener,
    pub(super) signals: OwnedFd,
    /// This process's PID namespace, to come back to.
    pub(super) own_pids: OwnedFd,
    /// First process of the PID namespace that the containers share, if they do.
    pub(super) shared_pids: Option<(Pid, OwnedFd)>,
    pub(super) clients: Vec<Client>,
    clients_so_far: u64,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) execs: Vec<Exec>,
    /// Ends of processes that an OCI runtime left to us before it said which they are.
    pub(super) strays: BTreeMap<i32, WaitStatus>,
    /// Where an OCI runtime will send terminals, by directory.
    pub(super) consoles: BTreeMap<PathBuf, UnixListener>,
    pub(super) buffer: Box<[u8]>,
    pub(super) done: bool,
}

/// What a descriptor in the poll set belongs to.
enum Source {
    Signals,
    Listener,
    Client(u64),
    Report(String),
    ExecReport(u64, u64),
    Output(String, usize),
    Attached(String, usize, usize),
}

impl Pod {
    /// Makes the pod's namespaces and says on `connection` whether that worked.
    pub(super) fn set_up(directory: PathBuf, connection: OwnedFd, hierarchy: Hierarchy) -> io::Result<Self> {
        let mut client = Client::new(0, connection)?;
        match Self::new(PodDirectory(directory), hierarchy) {
            Ok(mut pod) => {
                let ready = Message::Ready {
                    shim_pid: rustix::process::getpid().as_raw_pid(),
                };
                client.send(&ready, Vec::new())?;
                pod.clients.push(client);
                Ok(pod)
            }
            Err(reason) => {
                client.send(
                    &Message::Failed {
                        reason: reason.clone(),
                    },
                    Vec::new(),
                )?;
                Err(io::Error::other(reason))
            }
        }
    }

    fn new(directory: PodDirectory, hierarchy: Hierarchy) -> Result<Self, String> {
        let failed =
            |what: &'static str| move |error: io::Error| format!("{what}: {}", launch::words(&error));
        let record: PodRecord = record::read(&directory.record()).map_err(failed("read pod record"))?;
        let name: Vec<u8> = format!("shim:{}", record.spec.name)
            .into_bytes()
            .into_iter()
            .take(15)
            .collect();
        if let Ok(name) = std::ffi::CString::new(name) {
            // For people who look at a list of processes; nothing depends on it.
            let _ = rustix::thread::set_name(&name);
        }
        let listener = with_socket_path(&directory.0, UnixListener::bind).map_err(failed("listen"))?;
        listener.set_nonblocking(true).map_err(failed("listen"))?;
        let own_pids = rustix::fs::open(
            "/proc/self/ns/pid",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| failed("open PID namespace")(error.into()))?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| failed("become subreaper")(error.into()))?;
        let signals = kernel::child_signals().map_err(failed("watch children"))?;
        namespaces::enter(&record.spec)?;
        if !record.spec.host_ipc {
            namespaces::make_shm(&directory.shm()).map_err(failed("mount /dev/shm"))?;
        }
        let mut pod = Self {
            directory,
            record,
            hierarchy,
            listener,
            signals,
            own_pids,
            shared_pids: None,
            clients: Vec::new(),
            clients_so_far: 1,
            containers: BTreeMap::new(),
            execs: Vec::new(),
            strays: BTreeMap::new(),
            consoles: BTreeMap::new(),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            done: false,
        };
        if pod.record.spec.share_process_namespace && !pod.record.spec.host_pid {
            pod.shared_pids = Some(pod.start_reaper().map_err(failed("make PID namespace"))?);
        }
        Ok(pod)
    }

    /// The cgroup of a container.
    pub(super) fn group(&self, container: &str) -> Group {
        self.hierarchy.group(&self.record.cgroup.join(container))
    }

    /// Works until told to end.
    pub(super) fn run(mut self) -> io::Result<()> {
        while !self.done {
            let ready = self.wait()?;
            for (source, events) in ready {
                self.dispatch(source, events)?;
            }
        }
        if !self.record.spec.host_ipc {
            mount::detach(&self.directory.shm())?;
        }
        Ok(())
    }

    /// Waits until something happens.
    fn wait(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut polled = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        for client in &self.clients {
            let unsent = if client.has_unsent() {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            sources.push(Source::Client(client.id));
            polled.push(PollFd::new(client, PollFlags::IN | unsent));
        }
        for (id, container) in &self.containers {
            if let Phase::Launching(launching) = &container.phase
                && let Some(report) = &launching.report
            {
                sources.push(Source::Report(id.clone()));
                polled.push(PollFd::new(report, PollFlags::IN));
            }
            for (index, output) in container.outputs.iter().enumerate() {
                if let Some(fd) = &output.fd
                    && output.may_read()
                {
                    sources.push(Source::Output(id.clone(), index));
                    polled.push(PollFd::new(fd, PollFlags::IN));
                }
                for (client, attached) in output.attached.iter().enumerate() {
                    let wanted = if attached.pending.is_empty() {
                        PollFlags::empty()
                    } else {
                        PollFlags::OUT
                    };
                    sources.push(Source::Attached(id.clone(), index, client));
                    polled.push(PollFd::new(attached, wanted));
                }
            }
        }
        for exec in &self.execs {
            if let Some(report) = exec.report() {
                sources.push(Source::ExecReport(exec.client, exec.id));
                polled.push(PollFd::new(report, PollFlags::IN));
            }
        }
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None))?;
        let events: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        // From the back, so that what removes an attached client does not shift those still to come; signals last, so
        // that an end of file is seen before the end of the process that caused it.
        Ok(sources
            .into_iter()
            .zip(events)
            .rev()
            .filter(|(_, events)| !events.is_empty())
            .collect())
    }

    fn dispatch(&mut self, source: Source, events: PollFlags) -> io::Result<()> {
        match source {
            Source::Signals => self.reap()?,
            Source::Listener => match self.listener.accept() {
                Ok((socket, _)) => match Client::new(self.clients_so_far, socket.into()) {
                    Ok(client) => {
                        self.clients.push(client);
                        self.clients_so_far += 1;
                    }
                    Err(error) => eprintln!("shim: accept: {error}"),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => eprintln!("shim: accept: {error}"),
            },
            Source::Client(id) => self.serve_client(id, events),
            Source::Report(container) => self.read_report(&container)?,
            Source::ExecReport(client, exec) => self.read_exec_report(client, exec)?,
            Source::Output(container, index) => {
                if let Some(container) = self.containers.get_mut(&container) {
                    container.pump(index, &mut self.buffer);
                }
            }
            Source::Attached(container, index, client) => {
                let container = self.containers.get_mut(&container);
                if let Some(output) = container.and_then(|container| container.outputs.get_mut(index)) {
                    if events.intersects(PollFlags::ERR | PollFlags::NVAL) {
                        if client < output.attached.len() {
                            output.attached.remove(client);
                        }
                    } else {
                        output.flush(client);
                    }
                }
            }
        }
        Ok(())
    }

    fn serve_client(&mut self, id: u64, events: PollFlags) {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else {
            return;
        };
        let mut requests = Vec::new();
        let mut result = Ok(());
        if events.contains(PollFlags::OUT) {
            result = client.flush();
        }
        if result.is_ok() && events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            result = client.receive().map(|received| requests = received);
        }
        for request in requests {
            self.call(id, request);
        }
        if result.is_err() {
            self.clients.retain(|client| client.id != id);
            self.kill_execs_of(id);
        }
    }

    pub(super) fn answer(&mut self, client: u64, id: u64, result: Result<Answer, String>, fds: Vec<OwnedFd>) {
        self.tell(client, &Message::Answer { id, result }, fds);
    }

    /// Sends to one client, if it is still there. A client that fails is noticed by the loop.
    pub(super) fn tell(&mut self, client: u64, message: &Message, fds: Vec<OwnedFd>) {
        if let Some(client) = self.clients.iter_mut().find(|known| known.id == client) {
            let _ = client.send(message, fds);
        }
    }

    /// Sends to all clients but one, who knows already.
    pub(super) fn tell_others(&mut self, client: Option<u64>, message: &Message) {
        for client in self.clients.iter_mut().filter(|known| Some(known.id) != client) {
            let _ = client.send(message, Vec::new());
        }
    }
}
