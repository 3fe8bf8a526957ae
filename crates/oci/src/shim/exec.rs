//! Processes that are run in a running container: `kubectl exec`, exec probes and hooks.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use coracle_kernel::process::{self as kernel, Fork};
use rustix::process::{Pid, PidfdFlags, WaitStatus};

use super::container::{Launching, Phase, pipes};
use super::ends::code;
use super::namespaces::PidNamespace;
use super::pod::Pod;
use super::protocol::{Answer, Message};
use crate::launch::{self, Report, Stdio};
use crate::record::{self, ContainerRecord};
use crate::runtime::OciRuntime;
use crate::spec::{ContainerSpec, ExecSpec};

/// Such a process. It belongs to the client that asked for it and is killed when that goes away.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) client: u64,
    /// Chosen by the client.
    pub(super) id: u64,
    pub(super) pid: Pid,
    /// Until the program was executed.
    pub(super) launching: Option<Launching>,
    /// The client's ends, until it gets them.
    pub(super) streams: [Option<OwnedFd>; 3],
    pub(super) tty: bool,
    pub(super) container: String,
}

impl Exec {
    pub(super) fn report(&self) -> Option<&OwnedFd> {
        self.launching
            .as_ref()
            .and_then(|launching| launching.report.as_ref())
    }
}

impl Pod {
    /// Launches a process. Its client is answered when it reports.
    pub(super) fn exec(
        &mut self,
        client: u64,
        request: u64,
        id: u64,
        container: &str,
        exec: &ExecSpec,
    ) -> Result<(), String> {
        let directory = self.directory.container(container);
        let record: ContainerRecord =
            record::read(&directory.record()).map_err(|error| format!("read record: {error}"))?;
        let failed = |error: io::Error| format!("exec: {}", launch::words(&error));
        let (ours, theirs) = if exec.tty {
            Default::default()
        } else {
            let (ours, theirs) = pipes(exec.stdin).map_err(failed)?;
            ([ours.stdin, ours.stdout, ours.stderr], theirs)
        };
        let stdio = Stdio {
            stdin: theirs.stdin,
            stdout: theirs.stdout,
            stderr: theirs.stderr,
            terminal: exec.tty.then(|| exec.size.unwrap_or_default()),
        };
        let (pid, report) = match &self.record.oci_runtime {
            OciRuntime::Builtin => self.fork_exec(container, &record.spec, exec, stdio)?,
            OciRuntime::Binary(_) => self.runtime_exec(container, &record.spec, exec, stdio, (client, id))?,
        };
        let process =
            rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
        let launching = Launching {
            pid,
            process,
            report,
            executing: false,
            client,
            request,
        };
        self.execs.push(Exec {
            client,
            id,
            pid,
            launching: Some(launching),
            streams: ours,
            tty: exec.tty,
            container: container.to_owned(),
        });
        Ok(())
    }

    fn fork_exec(
        &self,
        container: &str,
        spec: &ContainerSpec,
        exec: &ExecSpec,
        stdio: Stdio,
    ) -> Result<(Pid, Option<OwnedFd>), String> {
        let failed = |error: io::Error| format!("exec: {}", launch::words(&error));
        let Some(Phase::Running { process, .. }) =
            self.containers.get(container).map(|container| &container.phase)
        else {
            return Err(format!("container {container} is not running"));
        };
        let group = self.group(container);
        let (report, status) = launch::report_channel().map_err(failed)?;
        let namespace = if self.record.spec.host_pid {
            PidNamespace::Own
        } else {
            PidNamespace::Of(process.as_fd())
        };
        match self.fork_into(namespace).map_err(failed)? {
            Fork::Parent(pid) => Ok((pid, Some(report))),
            Fork::Child => {
                drop(report);
                launch::exec(launch::Exec {
                    pod: &self.record.spec,
                    spec,
                    exec,
                    container: process.as_fd(),
                    hierarchy: &self.hierarchy,
                    group: &group,
                    stdio,
                    status: status.as_fd(),
                })
            }
        }
    }

    pub(super) fn read_exec_report(&mut self, client: u64, id: u64) -> io::Result<()> {
        let Some(exec) = self
            .execs
            .iter_mut()
            .find(|exec| (exec.client, exec.id) == (client, id))
        else {
            return Ok(());
        };
        let Some(launching) = &mut exec.launching else {
            return Ok(());
        };
        let Some(report) = &launching.report else {
            return Ok(());
        };
        let result = match launch::read_report(report.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Ok(Report::Terminal(master)) => {
                exec.streams = [Some(master), None, None];
                return Ok(());
            }
            Ok(Report::Executing) => {
                launching.executing = true;
                return Ok(());
            }
            Ok(Report::End) if launching.executing => Ok(()),
            Ok(Report::End) => Err("process was killed".to_owned()),
            Ok(Report::Failed(message)) => Err(message),
            Err(error) => Err(format!("read report: {}", launch::words(&error))),
        };
        self.exec_launched(client, id, result);
        Ok(())
    }

    /// Answers the client that waits for the launch.
    pub(super) fn exec_launched(&mut self, client: u64, id: u64, result: Result<(), String>) {
        let Some(exec) = self
            .execs
            .iter_mut()
            .find(|exec| (exec.client, exec.id) == (client, id))
        else {
            return;
        };
        let Some(launching) = exec.launching.take() else {
            return;
        };
        let streams = std::mem::take(&mut exec.streams);
        let tty = exec.tty;
        match result {
            Ok(()) => {
                let [stdin, stdout, stderr] = streams.each_ref().map(Option::is_some);
                let answer = Answer::Streams {
                    stdin,
                    stdout,
                    stderr,
                    tty,
                };
                self.answer(
                    client,
                    launching.request,
                    Ok(answer),
                    streams.into_iter().flatten().collect(),
                );
            }
            Err(message) => {
                let message = format!("unable to start container process: {message}");
                self.execs.retain(|exec| (exec.client, exec.id) != (client, id));
                self.answer(client, launching.request, Err(message), Vec::new());
            }
        }
    }

    /// If this child was such a process, tells its client. False when it was not.
    pub(super) fn exec_ended(&mut self, pid: Pid, status: WaitStatus) -> io::Result<bool> {
        let Some(exec) = self.execs.iter().find(|exec| exec.pid == pid) else {
            return Ok(false);
        };
        let (client, id) = (exec.client, exec.id);
        if exec
            .launching
            .as_ref()
            .is_some_and(|launching| launching.report.is_none())
        {
            self.runtime_exec_ended(client, id, status);
            return Ok(true);
        }
        let launching = |exec: &Exec| (exec.client, exec.id) == (client, id) && exec.launching.is_some();
        // All it had to say is in the channel already.
        while self.execs.iter().any(launching) {
            self.read_exec_report(client, id)?;
        }
        let before = self.execs.len();
        self.execs.retain(|exec| (exec.client, exec.id) != (client, id));
        if self.execs.len() < before {
            self.tell(
                client,
                &Message::ExecExited {
                    exec: id,
                    code: code(status),
                },
                Vec::new(),
            );
        }
        Ok(true)
    }

    pub(super) fn kill_exec(&mut self, client: u64, id: u64) -> Result<Answer, String> {
        let Some(exec) = self
            .execs
            .iter()
            .find(|exec| (exec.client, exec.id) == (client, id))
        else {
            return Ok(Answer::Done);
        };
        kill_session(exec)
            .map(|()| Answer::Done)
            .map_err(|error| format!("kill: {}", launch::words(&error)))
    }

    pub(super) fn kill_execs_of(&mut self, client: u64) {
        for exec in self.execs.iter().filter(|exec| exec.client == client) {
            if let Err(error) = kill_session(exec) {
                eprintln!("shim: kill process in {}: {error}", exec.container);
            }
        }
    }
}

/// Kills the process and those of its process group: it leads one. Before it has become a leader there is none yet.
fn kill_session(exec: &Exec) -> io::Result<()> {
    kernel::kill(exec.pid, libc::SIGKILL, true).or_else(|_| kernel::kill(exec.pid, libc::SIGKILL, false))
}
