//! How launches turn out and how processes end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

use coracle_kernel::cgroup::Group;
use rustix::process::{Pid, WaitOptions, WaitStatus};

use super::container::{Container, Phase, exit};
use super::exec::Exec;
use super::pod::Pod;
use super::protocol::{Answer, Message};
use crate::launch::{self, Report};
use crate::state::Exit;

impl Pod {
    /// Reads what a launching process says.
    pub(super) fn read_report(&mut self, id: &str) -> io::Result<()> {
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
        let exit = Exit::failed_start(&message);
        self.record_end(id, exit.clone());
        let container = id.to_owned();
        self.tell_others(Some(client), &Message::Exited { container, exit });
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
        let pid = pid.as_raw_pid();
        // For a daemon that has taken over meanwhile.
        let container = id.to_owned();
        self.tell_others(
            Some(client),
            &Message::Started {
                container,
                pid,
                started_at,
            },
        );
        self.answer(
            client,
            request,
            Ok(Answer::Started { pid, started_at }),
            Vec::new(),
        );
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
    pub(super) fn reap(&mut self) -> io::Result<()> {
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
        if !self.exec_ended(pid, status)? && self.runtime_is_at_work() {
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
        let container = id.to_owned();
        self.tell_others(None, &Message::Exited { container, exit });
    }

    /// Whether an OCI runtime may be about to tell of a process that has ended already.
    fn runtime_is_at_work(&self) -> bool {
        let by_runtime = |exec: &Exec| {
            exec.launching
                .as_ref()
                .is_some_and(|launching| launching.report.is_none())
        };
        self.containers.values().any(is_runtime) || self.execs.iter().any(by_runtime)
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
