//! Containers run by an OCI runtime binary instead of our launcher: `runc run --detach` on a bundle. The runtime ends
//! when it has launched the container's process, which then is our child, because shims adopt orphans.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Standard};

use coracle_kernel::mount::{self, Overlay};
use coracle_kernel::root::Root;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, PidfdFlags, WaitStatus};
use serde::Deserialize;

use super::bundle;
use super::container::{Launching, Phase, Pipes};
use super::ends::code;
use super::pod::Pod;
use super::{SOCKET, with_socket_path};
use crate::launch::{self, Stdio};
use crate::record::ContainerDirectory;
use crate::runtime::OciRuntime;
use crate::spec::{ContainerSpec, ExecSpec};

impl Pod {
    /// A call of the OCI runtime, whose log goes to `log`.
    fn runtime(&self, log: &Path) -> Command {
        let program = match &self.record.oci_runtime {
            OciRuntime::Binary(program) => program.as_path(),
            OciRuntime::Builtin => Path::new("runc"),
        };
        let mut command = Command::new(program);
        command.arg("--root").arg(self.directory.0.join("runtime"));
        command.arg("--log").arg(log).args(["--log-format", "json"]);
        command
    }

    pub(super) fn runtime_run(
        &mut self,
        id: &str,
        spec: &ContainerSpec,
        pipes: Pipes,
        (client, request): (u64, u64),
    ) -> Result<Launching, String> {
        let failed =
            |what: &'static str| move |error: io::Error| format!("{what}: {}", launch::words(&error));
        let directory = self.directory.container(id);
        mount_rootfs(&directory, spec).map_err(failed("mount root file system"))?;
        let config = bundle::config(
            &self.record,
            &self.directory,
            &directory,
            spec,
            self.shared_pids.as_ref().map(|(pid, _)| *pid),
        )?;
        fs::write(directory.0.join("config.json"), config).map_err(failed("write bundle"))?;
        let mut command = self.runtime(&directory.0.join("runtime.log"));
        command.current_dir(&directory.0);
        command.args(["run", "--detach", "--bundle"]).arg(&directory.0);
        command.arg("--pid-file").arg(directory.0.join("pid"));
        if spec.tty {
            command
                .arg("--console-socket")
                .arg(self.listen_for_console(&directory.0).map_err(failed("listen"))?);
        }
        command.arg(id);
        let child = spawn(command, pipes.stdin, pipes.stdout, pipes.stderr)?;
        Ok(Launching {
            pid: child.0,
            process: child.1,
            report: None,
            executing: false,
            client,
            request,
        })
    }

    /// Where the runtime, which runs in that directory, will send the master of a terminal. What it sends waits in the
    /// socket's queue.
    fn listen_for_console(&mut self, directory: &Path) -> io::Result<&'static str> {
        let listener = with_socket_path(directory, UnixListener::bind)?;
        listener.set_nonblocking(true)?;
        self.consoles.insert(directory.to_owned(), listener);
        Ok(SOCKET)
    }

    /// Takes the master of a terminal that the runtime has sent.
    fn take_console(&mut self, directory: &Path) -> io::Result<OwnedFd> {
        let listener = self.consoles.remove(directory).ok_or(io::ErrorKind::NotFound)?;
        fs::remove_file(directory.join(SOCKET))?;
        let (socket, _) = listener.accept()?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 128];
        let mut data = [io::IoSliceMut::new(&mut name)];
        rustix::net::recvmsg(&socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message
                && let Some(master) = fds.next()
            {
                return Ok(master);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// The runtime that was to launch a container has ended.
    pub(super) fn runtime_ended(&mut self, id: &str, status: WaitStatus) {
        let Some(Phase::Launching(launching)) = self.containers.get(id).map(|container| &container.phase)
        else {
            return;
        };
        let (client, request) = (launching.client, launching.request);
        let directory = self.directory.container(id);
        match self.adopt(id, &directory.0, status) {
            Ok((pid, process)) => {
                self.started(id, pid, process, client, request);
                if let Some(status) = self.strays.remove(&pid.as_raw_pid()) {
                    self.container_ended(id, status);
                }
            }
            Err(message) => self.not_started(id, &message, client, request),
        }
    }

    fn adopt(&mut self, id: &str, directory: &Path, status: WaitStatus) -> Result<(Pid, OwnedFd), String> {
        if code(status) != 0 {
            return Err(logged_error(&directory.join("runtime.log")));
        }
        let failed =
            |what: &'static str| move |error: io::Error| format!("{what}: {}", launch::words(&error));
        let pid = read_pid(&directory.join("pid")).map_err(failed("read pid"))?;
        let tty = self.containers.get(id).is_some_and(|container| container.tty);
        if tty {
            let master = self.take_console(directory).map_err(failed("take terminal"))?;
            if let Some(container) = self.containers.get_mut(id) {
                container.take_terminal(master).map_err(failed("take terminal"))?;
            }
        }
        // It may have ended already: any handle will do then, as nobody can be helped into that container any more.
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .or_else(|_| rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()))
            .map_err(|error| failed("open process")(error.into()))?;
        Ok((pid, process))
    }

    pub(super) fn runtime_exec(
        &mut self,
        id: &str,
        spec: &ContainerSpec,
        exec: &ExecSpec,
        stdio: Stdio,
        key: (u64, u64),
    ) -> Result<(Pid, Option<OwnedFd>), String> {
        let failed =
            |what: &'static str| move |error: io::Error| format!("{what}: {}", launch::words(&error));
        if self
            .containers
            .get(id)
            .and_then(super::container::Container::pid)
            .is_none()
        {
            return Err(format!("container {id} is not running"));
        }
        let container = self.directory.container(id);
        let directory = self.exec_directory(id, key);
        fs::create_dir_all(&directory).map_err(failed("make exec directory"))?;
        let process = bundle::exec_process(&self.record, &container, spec, exec)?;
        fs::write(directory.join("process.json"), process).map_err(failed("write process"))?;
        let mut command = self.runtime(&directory.join("runtime.log"));
        command.current_dir(&directory);
        command
            .args(["exec", "--detach", "--process"])
            .arg(directory.join("process.json"));
        command.arg("--pid-file").arg(directory.join("pid"));
        if exec.tty {
            command
                .arg("--console-socket")
                .arg(self.listen_for_console(&directory).map_err(failed("listen"))?);
        }
        command.arg(id);
        let child = spawn(command, stdio.stdin, stdio.stdout, stdio.stderr)?;
        Ok((child.0, None))
    }

    fn exec_directory(&self, id: &str, (client, exec): (u64, u64)) -> PathBuf {
        self.directory
            .container(id)
            .0
            .join(format!("exec-{client}-{exec}"))
    }

    /// The runtime that was to launch a process in a container has ended.
    pub(super) fn runtime_exec_ended(&mut self, client: u64, id: u64, status: WaitStatus) {
        let Some(index) = self
            .execs
            .iter()
            .position(|exec| (exec.client, exec.id) == (client, id))
        else {
            return;
        };
        let directory = self.exec_directory(&self.execs[index].container, (client, id));
        let tty = self.execs[index].tty;
        let mut launched = || -> Result<(Pid, Option<OwnedFd>), String> {
            if code(status) != 0 {
                return Err(logged_error(&directory.join("runtime.log")));
            }
            let failed =
                |what: &'static str| move |error: io::Error| format!("{what}: {}", launch::words(&error));
            let pid = read_pid(&directory.join("pid")).map_err(failed("read pid"))?;
            let terminal = tty.then(|| self.take_console(&directory));
            Ok((pid, terminal.transpose().map_err(failed("take terminal"))?))
        };
        let launched = launched();
        // Left behind, it goes with the container.
        let _ = fs::remove_dir_all(&directory);
        match launched {
            Err(message) => self.exec_launched(client, id, Err(message)),
            Ok((pid, terminal)) => {
                let exec = &mut self.execs[index];
                exec.pid = pid;
                if terminal.is_some() {
                    exec.streams = [terminal, None, None];
                }
                self.exec_launched(client, id, Ok(()));
                if let Some(status) = self.strays.remove(&pid.as_raw_pid())
                    && let Err(error) = self.exec_ended(pid, status)
                {
                    eprintln!("shim: end of exec: {error}");
                }
            }
        }
    }

    /// Removes what a runtime keeps of a container. With our own launcher there is nothing.
    pub(super) fn delete_bundle(&self, id: &str) -> Result<(), String> {
        if self.record.oci_runtime == OciRuntime::Builtin {
            return Ok(());
        }
        let directory = self.directory.container(id);
        let mut command = self.runtime(&directory.0.join("runtime.log"));
        command.args(["delete", "--force", id]);
        command
            .stdin(Standard::null())
            .stdout(Standard::null())
            .stderr(Standard::null());
        command
            .status()
            .map_err(|error| format!("delete {id}: {}", launch::words(&error)))?;
        mount::detach(&directory.rootfs()).map_err(|error| format!("unmount {id}: {}", launch::words(&error)))
    }
}

fn spawn(
    mut command: Command,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
) -> Result<(Pid, OwnedFd), String> {
    let standard = |stream: Option<OwnedFd>| stream.map_or_else(Standard::null, Standard::from);
    command
        .stdin(standard(stdin))
        .stdout(standard(stdout))
        .stderr(standard(stderr));
    let program = command.get_program().to_owned();
    let failed = |error: io::Error| format!("run {}: {}", program.display(), launch::words(&error));
    // Waited for with all other children, by number.
    let child = command.spawn().map_err(failed)?;
    let pid = Pid::from_child(&child);
    let process =
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
    Ok((pid, process))
}

fn mount_rootfs(directory: &ContainerDirectory, spec: &ContainerSpec) -> io::Result<()> {
    fs::create_dir_all(directory.rootfs())?;
    let (upper, work) = (directory.0.join("upper"), directory.0.join("work"));
    let overlay = Overlay {
        lower: &spec.layers,
        upper: &upper,
        work: &work,
        volatile: true,
    };
    mount::attach(overlay.mount()?, Root::open_path(&directory.rootfs())?)
}

fn read_pid(path: &Path) -> io::Result<Pid> {
    let pid = fs::read_to_string(path)?
        .trim()
        .parse()
        .ok()
        .and_then(Pid::from_raw);
    pid.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The last error in a runtime's log, without the words that lead our own message already.
fn logged_error(log: &Path) -> String {
    #[derive(Deserialize)]
    struct Entry {
        level: String,
        msg: String,
    }
    let mut text = String::new();
    let read = fs::File::open(log).and_then(|file| file.take(1 << 20).read_to_string(&mut text));
    let last = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Entry>(line).ok())
        .rfind(|entry| entry.level == "error");
    match (last, read) {
        (Some(entry), _) => {
            const LEAD: &str = "unable to start container process: ";
            entry
                .msg
                .split_once(LEAD)
                .map_or(entry.msg.clone(), |(_, rest)| rest.to_owned())
        }
        (None, Ok(_)) => "the OCI runtime failed without telling why".to_owned(),
        (None, Err(error)) => format!(
            "the OCI runtime failed; reading its log: {}",
            launch::words(&error)
        ),
    }
}
