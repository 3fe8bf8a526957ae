//! The shim of one pod: its namespaces, and the loop that waits for requests, output and ends of processes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use coracle_kernel::cgroup::{Group, Hierarchy};
use coracle_kernel::mount::{self, Attributes};
use coracle_kernel::process::{self as kernel, Fork};
use coracle_kernel::root::Root;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};

use super::client::Client;
use super::container::{Container, Phase, exit};
use super::protocol::{Answer, Call, Message, Request};
use super::with_socket_path;
use crate::launch::{self, Report};
use crate::record::{self, PodDirectory, PodRecord};
use crate::spec::{Network, PodSpec};
use crate::state::Exit;

/// As much as a pipe holds by default.
const BUFFER: usize = 64 * 1024;

/// A pod.
pub(super) struct Pod {
    pub(super) directory: PodDirectory,
    pub(super) record: PodRecord,
    pub(super) hierarchy: Hierarchy,
    listener: UnixListener,
    signals: OwnedFd,
    /// This process's PID namespace, to come back to.
    own_pids: OwnedFd,
    /// First process of the PID namespace that the containers share, if they do.
    shared_pids: Option<OwnedFd>,
    pub(super) clients: Vec<Client>,
    clients_so_far: u64,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) execs: Vec<super::exec::Exec>,
    /// Ends of processes that an OCI runtime left to us before it said which they are.
    pub(super) strays: BTreeMap<i32, WaitStatus>,
    /// Where an OCI runtime will send terminals, by directory.
    pub(super) consoles: BTreeMap<PathBuf, UnixListener>,
    buffer: Box<[u8]>,
    done: bool,
}

/// The PID namespace a new process shall be in.
pub(super) enum PidNamespace<'a> {
    Own,
    New,
    /// That of this process.
    Of(BorrowedFd<'a>),
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
    pub(super) fn set_up(directory: PathBuf, connection: OwnedFd) -> io::Result<Self> {
        let mut client = Client::new(0, connection)?;
        match Self::new(PodDirectory(directory)) {
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

    fn new(directory: PodDirectory) -> Result<Self, String> {
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
        let hierarchy = Hierarchy::detect().map_err(failed("find cgroups"))?;
        let own_pids = rustix::fs::open(
            "/proc/self/ns/pid",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| failed("open PID namespace")(error.into()))?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| failed("become subreaper")(error.into()))?;
        let signals = kernel::child_signals().map_err(failed("watch children"))?;
        enter_namespaces(&record.spec)?;
        if !record.spec.host_ipc {
            make_shm(&directory.shm()).map_err(failed("mount /dev/shm"))?;
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

    /// Starts the first process of a shared PID namespace. The kernel reaps for it what the containers leave behind.
    fn start_reaper(&self) -> io::Result<OwnedFd> {
        match self.fork_into(PidNamespace::New)? {
            Fork::Parent(pid) => Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?),
            Fork::Child => {
                let wait = || -> io::Result<()> {
                    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                    kernel::ignore_children()?;
                    kernel::close_from(0)?;
                    kernel::wait_for_ever()
                };
                let _ = wait();
                kernel::exit_now(1)
            }
        }
    }

    /// Forks a process into a PID namespace; in all other namespaces it is with this process.
    pub(super) fn fork_into(&self, namespace: PidNamespace<'_>) -> io::Result<Fork> {
        match namespace {
            PidNamespace::Own => return kernel::fork(),
            PidNamespace::New => kernel::unshare(UnshareFlags::NEWPID)?,
            PidNamespace::Of(process) => {
                rustix::thread::move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID)?;
            }
        }
        let fork = kernel::fork();
        if !matches!(fork, Ok(Fork::Child)) {
            kernel::enter(&self.own_pids, LinkNameSpaceType::ProcessID)?;
        }
        fork
    }

    /// Where containers' processes are born.
    pub(super) fn pid_namespace(&self) -> PidNamespace<'_> {
        match &self.shared_pids {
            _ if self.record.spec.host_pid => PidNamespace::Own,
            Some(reaper) => PidNamespace::Of(reaper.as_fd()),
            None => PidNamespace::New,
        }
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

    /// Does what a request asks for. Launches are answered later.
    fn call(&mut self, client: u64, Request { id: request, call }: Request) {
        let result = match call {
            Call::Start { container } => match self.start(client, request, &container) {
                Ok(()) => return,
                Err(message) => Err(message),
            },
            Call::Exec {
                exec,
                container,
                spec,
            } => match self.exec(client, request, exec, &container, &spec) {
                Ok(()) => return,
                Err(message) => Err(message),
            },
            Call::Kill { container, signal } => self.kill(&container, signal),
            Call::KillExec { exec } => self.kill_exec(client, exec),
            Call::Attach { container } => match self.attach(&container) {
                Ok((answer, fds)) => {
                    self.answer(client, request, Ok(answer), fds);
                    return;
                }
                Err(message) => Err(message),
            },
            Call::ReopenLog { container } => self.reopen_log(&container),
            Call::Forget { container } => self.forget(&container),
            Call::State => Ok(Answer::State {
                shim_pid: rustix::process::getpid().as_raw_pid(),
                containers: self
                    .containers
                    .iter()
                    .map(|(id, container)| (id.clone(), container.status()))
                    .collect(),
            }),
            Call::Shutdown => {
                self.shut_down();
                Ok(Answer::Done)
            }
        };
        self.answer(client, request, result, Vec::new());
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

    fn tell_all(&mut self, message: &Message) {
        for client in &mut self.clients {
            let _ = client.send(message, Vec::new());
        }
    }

    fn kill(&mut self, id: &str, signal: i32) -> Result<Answer, String> {
        // Nothing to signal is what the caller wants.
        let Some(container) = self.containers.get(id) else {
            return Ok(Answer::Done);
        };
        let Some(pid) = container.pid() else {
            return Ok(Answer::Done);
        };
        kernel::kill(pid, signal, false).map_err(|error| format!("kill: {}", launch::words(&error)))?;
        if signal == libc::SIGKILL {
            self.kill_rest(id);
        }
        Ok(Answer::Done)
    }

    /// Where the container's first process is not the first of a PID namespace, its other processes outlive it.
    fn kill_rest(&self, id: &str) {
        if matches!(self.pid_namespace(), PidNamespace::New) {
            return;
        }
        let Some(container) = self.containers.get(id) else {
            return;
        };
        for pid in container.group.processes().unwrap_or_default() {
            // Gone already is as good.
            let _ = kernel::kill(pid, libc::SIGKILL, false);
        }
    }

    fn attach(&mut self, id: &str) -> Result<(Answer, Vec<OwnedFd>), String> {
        let container = self
            .containers
            .get_mut(id)
            .filter(|container| container.pid().is_some());
        let container = container.ok_or_else(|| format!("container {id} is not running"))?;
        let streams = container
            .attach()
            .map_err(|error| format!("attach: {}", launch::words(&error)))?;
        let [stdin, stdout, stderr] = streams.each_ref().map(Option::is_some);
        let answer = Answer::Streams {
            stdin,
            stdout,
            stderr,
            tty: container.tty,
        };
        Ok((answer, streams.into_iter().flatten().collect()))
    }

    fn reopen_log(&mut self, id: &str) -> Result<Answer, String> {
        let log = self
            .containers
            .get_mut(id)
            .and_then(|container| container.log.as_mut());
        log.map_or(Ok(()), super::log::LogFile::reopen)
            .map(|()| Answer::Done)
            .map_err(|error| format!("reopen log: {}", launch::words(&error)))
    }

    fn forget(&mut self, id: &str) -> Result<Answer, String> {
        match self.containers.get(id).map(|container| &container.phase) {
            Some(Phase::Launching(_) | Phase::Running { .. }) => Err(format!("container {id} is running")),
            _ => {
                self.delete_bundle(id)?;
                self.containers.remove(id);
                Ok(Answer::Done)
            }
        }
    }

    fn shut_down(&mut self) {
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            if let Err(message) = self.delete_bundle(&id) {
                eprintln!("shim: {message}");
            }
        }
        // What still runs dies with this process, which asked for that when it launched it.
        self.done = true;
    }

    /// Reads what a launching process says.
    fn read_report(&mut self, id: &str) -> io::Result<()> {
        let Some(container) = self.containers.get_mut(id) else {
            return Ok(());
        };
        let Phase::Launching(launching) = &mut container.phase else {
            return Ok(());
        };
        let Some(report) = &launching.report else {
            return Ok(());
        };
        let (client, request, pid) = (launching.client, launching.request, launching.pid);
        let result = match launch::read_report(report.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Ok(Report::Terminal(master)) => return container.take_terminal(master),
            Ok(Report::Executing) => {
                launching.executing = true;
                return Ok(());
            }
            Ok(Report::End) if launching.executing => Ok(()),
            Ok(Report::End) => Err(killed_while_launching(&container.group)),
            Ok(Report::Failed(message)) => Err(message),
            Err(error) => Err(format!("read report: {}", launch::words(&error))),
        };
        match result {
            Ok(()) => {
                let process = launching.process.try_clone()?;
                self.started(id, pid, process, client, request);
            }
            Err(message) => self.not_started(id, &message, client, request),
        }
        Ok(())
    }

    /// The program could not be executed.
    pub(super) fn not_started(&mut self, id: &str, message: &str, client: u64, request: u64) {
        let message = format!("unable to start container process: {message}");
        self.record_end(id, Exit::failed_start(&message));
        self.answer(client, request, Err(message), Vec::new());
    }

    /// The program was executed.
    pub(super) fn started(&mut self, id: &str, pid: Pid, process: OwnedFd, client: u64, request: u64) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let started_at = SystemTime::now();
        container.phase = Phase::Running {
            pid,
            started_at,
            process,
        };
        container.note_status();
        let answer = Answer::Started {
            pid: pid.as_raw_pid(),
            started_at,
        };
        self.answer(client, request, Ok(answer), Vec::new());
    }

    /// Notes on disk and in memory how a container ended. Its streams are complete.
    pub(super) fn record_end(&mut self, id: &str, exit: Exit) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.drain(&mut self.buffer);
        container.input = None;
        container.phase = Phase::Ended(exit);
        container.note_status();
    }

    /// Waits for every child that has ended.
    fn reap(&mut self) -> io::Result<()> {
        // One notice may stand for several ends.
        let _ = rustix::io::read(&self.signals, &mut [0; 128]);
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid, status)?,
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) -> io::Result<()> {
        let launching =
            |container: &Container| matches!(&container.phase, Phase::Launching(l) if l.pid == pid);
        if let Some(id) = self
            .containers
            .iter()
            .find(|(_, c)| launching(c))
            .map(|(id, _)| id.clone())
        {
            if self.containers.get(&id).is_some_and(is_runtime) {
                self.runtime_ended(&id, status);
                return Ok(());
            }
            // All it had to say is in the channel already.
            while self.containers.get(&id).is_some_and(launching) {
                self.read_report(&id)?;
            }
        }
        let running = |container: &Container| container.pid() == Some(pid);
        if let Some(id) = self
            .containers
            .iter()
            .find(|(_, c)| running(c))
            .map(|(id, _)| id.clone())
        {
            self.container_ended(&id, status);
            return Ok(());
        }
        if !self.exec_ended(pid, status)? && self.record.oci_runtime != crate::runtime::OciRuntime::Builtin {
            self.strays.insert(pid.as_raw_pid(), status);
        }
        Ok(())
    }

    pub(super) fn container_ended(&mut self, id: &str, status: WaitStatus) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let Phase::Running { started_at, .. } = container.phase else {
            return;
        };
        self.kill_rest(id);
        let oom_killed = container.group.oom_kills().is_ok_and(|kills| kills > 0);
        let exit = exit(code(status), status.terminating_signal(), oom_killed, started_at);
        self.record_end(id, exit.clone());
        self.tell_all(&Message::Exited {
            container: id.to_owned(),
            exit,
        });
    }
}

fn is_runtime(container: &Container) -> bool {
    matches!(&container.phase, Phase::Launching(launching) if launching.report.is_none())
}

/// The exit code as shells have it.
pub(super) fn code(status: WaitStatus) -> i32 {
    status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}

fn killed_while_launching(group: &Group) -> String {
    if group.oom_kills().is_ok_and(|kills| kills > 0) {
        "container init was OOM-killed (memory limit too low?)".to_owned()
    } else {
        "container init was killed".to_owned()
    }
}

/// Moves this process into the namespaces of the pod, where its containers are born.
fn enter_namespaces(spec: &PodSpec) -> Result<(), String> {
    let failed = |what: String| move |error: io::Error| format!("{what}: {}", launch::words(&error));
    let mut namespaces = UnshareFlags::empty();
    if let Network::Namespace(path) = &spec.network {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| failed(format!("open network namespace {}", path.display()))(error.into()))?;
        kernel::enter(namespace, LinkNameSpaceType::Network)
            .map_err(failed("enter network namespace".to_owned()))?;
        namespaces |= UnshareFlags::NEWUTS;
    }
    if !spec.host_ipc {
        namespaces |= UnshareFlags::NEWIPC;
    }
    kernel::unshare(namespaces).map_err(failed("unshare namespaces".to_owned()))?;
    if namespaces.contains(UnshareFlags::NEWUTS) {
        kernel::set_hostname(&spec.hostname).map_err(failed(format!("set host name {:?}", spec.hostname)))?;
    }
    let sysctls = Root::open_path(Path::new("/proc/sys")).map_err(failed("open /proc/sys".to_owned()))?;
    for (name, value) in &spec.sysctls {
        if !is_namespaced(name, spec) {
            return Err(format!("sysctl {name:?} is not namespaced"));
        }
        let file = sysctls.open(name.replace('.', "/"), OFlags::WRONLY);
        file.and_then(|file| Ok(rustix::io::write(file, value.as_bytes())?))
            .map_err(failed(format!("set sysctl {name}={value}")))?;
    }
    Ok(())
}

/// Whether a sysctl would change this pod only: kubelet's list (`pkg/kubelet/sysctl/namespace.go`).
fn is_namespaced(name: &str, spec: &PodSpec) -> bool {
    let ipc = ["kernel.sem", "kernel.shm_rmid_forced"].contains(&name)
        || ["kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|prefix| name.starts_with(prefix));
    ipc && !spec.host_ipc || name.starts_with("net.") && spec.network != Network::Host
}

fn make_shm(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let attributes = Attributes::NO_SUID
        .and(Attributes::NO_DEV)
        .and(Attributes::NO_EXEC);
    let shm = mount::filesystem("tmpfs", &[("mode", "1777"), ("size", "65536k")], attributes)?;
    mount::attach(shm, Root::open_path(path)?)
}
