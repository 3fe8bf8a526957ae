//! Ends of pipes and terminals as asynchronous streams.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::termios::Winsize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

/// One end of a pipe or terminal: for reading when it carries output, for writing when it carries input. Dropping it, or
/// shutting it down, is end of file for the other side of a pipe.
#[derive(Debug)]
pub struct Stream(End);

#[derive(Debug)]
enum End {
    Read(Receiver),
    Write(Sender),
    Closed,
}

impl Stream {
    /// Takes a descriptor to read from. Must be called on a runtime.
    pub(super) fn reader(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        // Unchecked, because it may be a terminal, which behaves alike.
        Ok(Self(End::Read(Receiver::from_owned_fd_unchecked(fd)?)))
    }

    /// Takes a descriptor to write to. Must be called on a runtime.
    pub(super) fn writer(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self(End::Write(Sender::from_owned_fd_unchecked(fd)?)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let End::Read(receiver) = &mut self.0 else {
            return Poll::Ready(Ok(()));
        };
        match Pin::new(receiver).poll_read(cx, buf) {
            // A terminal answers so when its last user has closed it: end of file.
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                Poll::Ready(Ok(()))
            }
            result => result,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            End::Write(sender) => Pin::new(sender).poll_write(cx, buf),
            End::Read(_) | End::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = End::Closed;
        Poll::Ready(Ok(()))
    }
}

/// Sets the size of a terminal.
pub(super) fn resize(terminal: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
