//! Standard streams of a new process: pipes, a terminal of the container's own `devpts`, or `/dev/null`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use coracle_kernel::mount;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::{Failure, Notice, Stdio, duplicate, report};

/// The three descriptors a program starts with.
pub(super) type Standard = [OwnedFd; 3];

/// Opens what the process shall have as its standard streams; a terminal becomes the controlling one, its master goes to
/// the shim, and it is mounted on `console`.
pub(super) fn standard_streams(
    stdio: Stdio,
    status: BorrowedFd<'_>,
    console: Option<OwnedFd>,
) -> Result<Standard, Failure> {
    if let Some(size) = stdio.terminal {
        return open_terminal(size, status, console);
    }
    let null = |write: bool| -> Result<OwnedFd, Failure> {
        let open = OpenOptions::new().read(!write).write(write).open("/dev/null");
        open.map(OwnedFd::from).map_err(Failure::at("open /dev/null"))
    };
    Ok([
        stdio.stdin.map_or_else(|| null(false), Ok)?,
        stdio.stdout.map_or_else(|| null(true), Ok)?,
        stdio.stderr.map_or_else(|| null(true), Ok)?,
    ])
}

fn open_terminal(
    (columns, rows): (u16, u16),
    status: BorrowedFd<'_>,
    console: Option<OwnedFd>,
) -> Result<Standard, Failure> {
    let master = open_no_tty("/dev/pts/ptmx").map_err(Failure::at("open /dev/pts/ptmx"))?;
    rustix::pty::unlockpt(&master).map_err(Failure::at("unlock terminal"))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(Failure::at("open terminal"))?;
    if (columns, rows) != (0, 0) {
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&slave, size).map_err(Failure::at("set terminal size"))?;
    }
    if let Some(console) = console {
        let name = rustix::pty::ptsname(&master, Vec::new()).map_err(Failure::at("name terminal"))?;
        let name = name
            .into_string()
            .map_err(|_| Failure("name terminal: not UTF-8".to_owned()))?;
        let terminal = mount::clone_tree(name.as_ref(), false).map_err(Failure::at("clone terminal"))?;
        mount::attach(terminal, console).map_err(Failure::at("mount /dev/console"))?;
    }
    rustix::process::ioctl_tiocsctty(&slave).map_err(Failure::at("set controlling terminal"))?;
    report(status, &Notice::Terminal, &[master.as_fd()])?;
    Ok([duplicate(&slave)?, duplicate(&slave)?, slave])
}

fn open_no_tty(path: &str) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(path)
}
