//! What daemons ask of a shim.

use std::os::fd::OwnedFd;

use coracle_kernel::process as kernel;

use super::container::Phase;
use super::log::LogFile;
use super::namespaces::PidNamespace;
use super::pod::Pod;
use super::protocol::{Answer, Call, Message, Request};
use crate::launch;
use crate::record;
use crate::state::{ContainerStatus, Exit};

impl Pod {
    /// Does what a request asks for. Launches are answered later.
    pub(super) fn call(&mut self, client: u64, Request { id: request, call }: Request) {
        let result = match call {
            Call::Start { container } if self.containers.contains_key(&container) => {
                Err(format!("container {container} was started already"))
            }
            Call::Start { container } => match self.start(client, request, &container) {
                Ok(()) => return,
                Err(message) => {
                    self.never_launched(client, &container, &message);
                    Err(message)
                }
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

    /// A container that could not even be tried to start has ended all the same.
    fn never_launched(&mut self, client: u64, id: &str, message: &str) {
        let exit = Exit::failed_start(message);
        let status = ContainerStatus::Exited(exit.clone());
        if let Err(error) = record::write(&self.directory.container(id).status(), &status) {
            eprintln!("shim: write status of {id}: {error}");
        }
        self.tell_others(
            Some(client),
            &Message::Exited {
                container: id.to_owned(),
                exit,
            },
        );
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
    pub(super) fn kill_rest(&self, id: &str) {
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
        log.map_or(Ok(()), LogFile::reopen)
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
}
