//! Processes run in containers and connections to containers' streams, as the daemon holds them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::connection::{Connection, Failed};
use super::stream::{Stream, resize};
use crate::shim::protocol::Call;
use crate::{Error, Result};

/// A process started by [`Runtime::exec`](crate::Runtime::exec). Dropping it kills the process.
#[derive(Debug)]
pub struct ExecSession {
    /// Standard input, when asked for. Dropping it is end of file (without a tty).
    pub stdin: Option<Stream>,
    /// Standard output; the terminal with a tty. Ends when the process and all that inherited it have closed it.
    pub stdout: Option<Stream>,
    /// Standard error; absent with a tty.
    pub stderr: Option<Stream>,
    terminal: Option<OwnedFd>,
    process: Process,
    code: Option<oneshot::Receiver<i32>>,
    ended: Option<i32>,
}

/// A process in a shim that must not outlive its owner here.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) connection: Arc<Connection>,
    pub(super) exec: u64,
    pub(super) ended: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.forget_exec(self.exec);
            self.connection.cast(Call::KillExec { exec: self.exec });
        }
    }
}

impl ExecSession {
    pub(super) fn new(
        process: Process,
        code: oneshot::Receiver<i32>,
        stdin: bool,
        tty: bool,
        streams: [Option<OwnedFd>; 3],
    ) -> io::Result<Self> {
        let mut session = Self {
            stdin: None,
            stdout: None,
            stderr: None,
            terminal: None,
            process,
            code: Some(code),
            ended: None,
        };
        let [input, output, error] = streams;
        if tty {
            if let Some(master) = input {
                session.stdin = if stdin {
                    Some(Stream::writer(master.try_clone()?)?)
                } else {
                    None
                };
                session.stdout = Some(Stream::reader(master.try_clone()?)?);
                session.terminal = Some(master);
            }
        } else {
            session.stdin = input.map(Stream::writer).transpose()?;
            session.stdout = output.map(Stream::reader).transpose()?;
            session.stderr = error.map(Stream::reader).transpose()?;
        }
        Ok(session)
    }

    /// Sets the terminal's size. Does nothing without a tty.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        set_size(self.terminal.as_ref(), columns, rows)
    }

    /// Waits for the end and returns the exit code, 128 + signal when a signal ended it. Cancel-safe.
    pub async fn wait(&mut self) -> Result<i32> {
        if let Some(code) = self.ended {
            return Ok(code);
        }
        let Some(receiver) = &mut self.code else {
            return Err(lost());
        };
        let code = receiver.await;
        self.code = None;
        self.process.ended = true;
        let code = code.map_err(|_| lost())?;
        self.ended = Some(code);
        Ok(code)
    }

    /// Kills the process and its process group. Its end is seen by [`wait`](Self::wait). Success when it has ended.
    pub async fn kill(&self) -> Result<()> {
        match self
            .process
            .connection
            .call(Call::KillExec {
                exec: self.process.exec,
            })
            .await
        {
            // Without its shim no process of a pod lives.
            Ok(_) | Err(Failed::Gone) => Ok(()),
            Err(Failed::Refused(message)) => Err(Error::InvalidState(message)),
        }
    }
}

/// A connection to a running container's streams. Dropping it detaches.
#[derive(Debug)]
pub struct Attachment {
    /// Standard input, when the container keeps it open.
    pub stdin: Option<Stream>,
    /// Standard output from now on; what the terminal shows with a tty.
    pub stdout: Option<Stream>,
    /// Standard error; absent with a tty.
    pub stderr: Option<Stream>,
    /// The container has a terminal.
    pub tty: bool,
    terminal: Option<OwnedFd>,
}

impl Attachment {
    pub(super) fn new(stdin: bool, tty: bool, streams: [Option<OwnedFd>; 3]) -> io::Result<Self> {
        let [input, output, error] = streams;
        let terminal = input
            .as_ref()
            .filter(|_| tty)
            .map(OwnedFd::try_clone)
            .transpose()?;
        Ok(Self {
            stdin: input.filter(|_| stdin).map(Stream::writer).transpose()?,
            stdout: output.map(Stream::reader).transpose()?,
            stderr: error.map(Stream::reader).transpose()?,
            tty,
            terminal,
        })
    }

    /// Sets the terminal's size. Does nothing without a tty.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        set_size(self.terminal.as_ref(), columns, rows)
    }
}

fn lost() -> Error {
    Error::InvalidState("the shim is gone, and with it the process".to_owned())
}

fn set_size(terminal: Option<&OwnedFd>, columns: u16, rows: u16) -> Result<()> {
    terminal.map_or(Ok(()), |terminal| {
        resize(terminal, columns, rows).map_err(Error::io("set the size of", "terminal"))
    })
}
