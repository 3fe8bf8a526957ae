//! A container in its shim: the process, its streams, its log.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use coracle_kernel::cgroup::Group;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::Pid;

use super::log::{Lines, LogFile, timestamp};
use crate::record::{self, ContainerDirectory};
use crate::spec::ContainerSpec;
use crate::state::{ContainerStatus, Exit};

/// A container that was started.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) directory: ContainerDirectory,
    pub(super) group: Group,
    pub(super) tty: bool,
    pub(super) stdin_once: bool,
    pub(super) phase: Phase,
    /// Standard output and error; of a terminal, its master.
    pub(super) outputs: Vec<Output>,
    /// Our end of standard input, of a terminal its master.
    pub(super) input: Option<OwnedFd>,
    pub(super) log: Option<LogFile>,
}

/// What the process is doing.
#[derive(Debug)]
pub(super) enum Phase {
    /// On its way to the program, or an OCI runtime is on it.
    Launching(Launching),
    /// The program runs.
    Running {
        pid: Pid,
        started_at: SystemTime,
        /// A handle of the process.
        process: OwnedFd,
    },
    Ended(Exit),
}

/// A launch and who waits for it.
#[derive(Debug)]
pub(super) struct Launching {
    pub(super) pid: Pid,
    /// A handle of the process.
    pub(super) process: OwnedFd,
    /// Where the process reports; with an OCI runtime there is none.
    pub(super) report: Option<OwnedFd>,
    /// The process reported that it is about to execute the program.
    pub(super) executing: bool,
    pub(super) client: u64,
    pub(super) request: u64,
}

/// A stream of output.
#[derive(Debug)]
pub(super) struct Output {
    /// Our end; none after the end of file.
    pub(super) fd: Option<OwnedFd>,
    lines: Lines,
    pub(super) attached: Vec<Attached>,
}

/// A client's copy of a stream.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) fd: OwnedFd,
    /// Read from the container and not yet taken by the client. As long as there is some, the container's stream is not
    /// read: a slow client slows the container down instead of losing output.
    pub(super) pending: Vec<u8>,
}

/// The streams of a new process: our ends and the process's.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// Makes pipes; standard input only on request. Ours come first.
pub(super) fn pipes(stdin: bool) -> io::Result<(Pipes, Pipes)> {
    let mut ours = Pipes::default();
    let mut theirs = Pipes::default();
    if stdin {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        (ours.stdin, theirs.stdin) = (Some(write), Some(read));
    }
    for (ours, theirs) in [
        (&mut ours.stdout, &mut theirs.stdout),
        (&mut ours.stderr, &mut theirs.stderr),
    ] {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        (*ours, *theirs) = (Some(read), Some(write));
    }
    Ok((ours, theirs))
}

impl Container {
    pub(super) fn new(
        directory: ContainerDirectory,
        group: Group,
        spec: &ContainerSpec,
        launching: Launching,
        log: Option<LogFile>,
    ) -> Self {
        Self {
            directory,
            group,
            tty: spec.tty,
            stdin_once: spec.stdin_once,
            phase: Phase::Launching(launching),
            outputs: Vec::new(),
            input: None,
            log,
        }
    }

    /// Takes our ends of the process's pipes.
    pub(super) fn take_pipes(&mut self, pipes: Pipes) -> io::Result<()> {
        self.input = pipes.stdin;
        for (fd, stream) in [(pipes.stdout, "stdout"), (pipes.stderr, "stderr")] {
            let Some(fd) = fd else { continue };
            rustix::io::ioctl_fionbio(&fd, true)?;
            self.outputs.push(Output {
                fd: Some(fd),
                lines: Lines::new(stream),
                attached: Vec::new(),
            });
        }
        Ok(())
    }

    /// Takes the master of the process's terminal.
    pub(super) fn take_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        let input = master.try_clone()?;
        self.take_pipes(Pipes {
            stdin: Some(input),
            stdout: Some(master),
            stderr: None,
        })
    }

    /// Reads from a stream once, logs it and copies it to who is attached. Returns whether there may be more.
    pub(super) fn pump(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        let Some(output) = self.outputs.get_mut(index) else {
            return false;
        };
        let Some(fd) = &output.fd else { return false };
        let mut entries = Vec::new();
        let more = match rustix::io::read(fd, &mut *buffer) {
            Err(Errno::AGAIN | Errno::INTR) => return false,
            // A terminal answers EIO when the last process has closed it.
            Ok(0) | Err(_) => {
                output.lines.end(&timestamp(), &mut entries);
                output.fd = None;
                output.attached.retain(|attached| !attached.pending.is_empty());
                false
            }
            Ok(count) => {
                output.lines.feed(&buffer[..count], &timestamp(), &mut entries);
                for attached in &mut output.attached {
                    attached.pending.extend_from_slice(&buffer[..count]);
                }
                output.attached.retain_mut(Attached::flush);
                true
            }
        };
        if let Some(log) = &mut self.log
            && let Err(error) = log.write(&entries)
        {
            eprintln!("shim: write log: {error}");
        }
        more
    }

    /// The process has ended: reads what is left in the pipes. Clients that are still busy get no more than fits.
    pub(super) fn drain(&mut self, buffer: &mut [u8]) {
        for index in 0..self.outputs.len() {
            while self.pump(index, buffer) {}
        }
    }

    /// Connects a client: its ends of the streams that there are (input, output, error).
    pub(super) fn attach(&mut self) -> io::Result<[Option<OwnedFd>; 3]> {
        let input = if self.stdin_once {
            self.input.take()
        } else {
            self.input.as_ref().map(OwnedFd::try_clone).transpose()?
        };
        let mut streams = [input, None, None];
        for (output, slot) in self.outputs.iter_mut().zip(&mut streams[1..]) {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&write, true)?;
            if output.fd.is_some() {
                output.attached.push(Attached {
                    fd: write,
                    pending: Vec::new(),
                });
            }
            *slot = Some(read);
        }
        Ok(streams)
    }

    pub(super) fn status(&self) -> ContainerStatus {
        match &self.phase {
            Phase::Launching(_) => ContainerStatus::Created,
            Phase::Running { pid, started_at, .. } => ContainerStatus::Running {
                pid: pid.as_raw_pid(),
                started_at: *started_at,
            },
            Phase::Ended(exit) => ContainerStatus::Exited(exit.clone()),
        }
    }

    /// Writes the status down for a daemon that finds no shim any more.
    pub(super) fn note_status(&self) {
        if let Err(error) = record::write(&self.directory.status(), &self.status()) {
            eprintln!("shim: write {}: {error}", self.directory.status().display());
        }
    }

    /// The first process, if it can be signalled: launched and not yet waited for.
    pub(super) fn pid(&self) -> Option<Pid> {
        match &self.phase {
            Phase::Running { pid, .. } => Some(*pid),
            Phase::Launching(_) | Phase::Ended(_) => None,
        }
    }
}

impl Output {
    /// Whether nobody attached is behind.
    pub(super) fn may_read(&self) -> bool {
        self.attached.iter().all(|attached| attached.pending.is_empty())
    }

    /// Writes to a client that has room again; drops one that is gone or, after the end of file, done.
    pub(super) fn flush(&mut self, index: usize) {
        let ended = self.fd.is_none();
        if let Some(attached) = self.attached.get_mut(index)
            && (!attached.flush() || ended && attached.pending.is_empty())
        {
            self.attached.remove(index);
        }
    }
}

impl Attached {
    /// Writes what the client takes; false when it is gone.
    fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.fd, &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                }
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        self.pending = Vec::new();
        true
    }
}

impl AsFd for Attached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The exit of a process that was executed.
pub(super) fn exit(code: i32, signal: Option<i32>, oom_killed: bool, started_at: SystemTime) -> Exit {
    let reason = match (code, oom_killed) {
        (_, true) => "OOMKilled",
        (0, false) => "Completed",
        (_, false) => "Error",
    };
    Exit {
        code,
        signal,
        oom_killed,
        reason: reason.to_owned(),
        message: String::new(),
        started_at: Some(started_at),
        finished_at: SystemTime::now(),
    }
}
