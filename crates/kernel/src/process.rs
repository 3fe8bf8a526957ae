//! Processes: fork, exec, signals, namespaces, system call filters. What `rustix` does not offer, or offers only as
//! `unsafe`, wrapped so that callers need none. Upstream counterpart: runc's `libcontainer`.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The process that called; holds the child's process id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks. Fails with `EINVAL` in a process that has more than one thread: locks that other threads hold at that moment
/// would stay locked in the child for ever.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: unshare takes no pointers; CLONE_THREAD changes nothing, it only fails when there are other threads.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this is the only thread, as just checked, so the child finds every lock free and may run any code.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid)
            .filter(|_| pid > 0)
            .map(Fork::Parent)
            .ok_or_else(io::Error::last_os_error),
    }
}

/// Ends this process at once: no destructors, no `atexit` handlers. For the child of a [`fork`].
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of this process.
    unsafe { libc::_exit(code) }
}

/// Replaces this process's program. Returns only when that failed.
pub fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> io::Result<Infallible> {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Marks every file descriptor from `first` on as close-on-exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: close_range takes no pointers, and this flag closes nothing in this process.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

/// Closes every file descriptor from `first` on. For a process that runs nothing any more that could own one.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: close_range takes no pointers. Owners of the descriptors fail afterwards with EBADF; new descriptors can
    // be mistaken for old ones, which is why callers must not go on with old owners.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })
}

/// Waits for signals, for ever.
pub fn wait_for_ever() -> ! {
    loop {
        // SAFETY: pause touches no memory.
        unsafe { libc::pause() };
    }
}

/// Blocks `SIGCHLD` and returns a descriptor, non-blocking, that becomes readable when it arrives.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before its use; signalfd returns a descriptor nobody else owns.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

/// Lets the kernel reap children of this process: they leave no zombies and cannot be waited for.
pub fn ignore_children() -> io::Result<()> {
    // SAFETY: SIG_IGN installs no handler.
    if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives every signal its default action and unblocks all: the state a new program expects.
pub fn reset_signals() -> io::Result<()> {
    // SAFETY: SIG_DFL installs no handler, and the set is initialised by sigemptyset before its use.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            // KILL, STOP and the C library's own signals refuse; they are at their default anyway.
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        check(i64::from(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const set,
            ptr::null_mut(),
        )))
    }
}

/// Sends a signal by number, which may be a real-time signal. A group is meant when `group` is set.
pub fn kill(pid: Pid, signal: i32, group: bool) -> io::Result<()> {
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: kill takes no pointers.
    check(i64::from(unsafe {
        libc::kill(if group { -pid } else { pid }, signal)
    }))
}

/// Moves this thread into new namespaces. File descriptor tables cannot be unshared by this.
pub fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    let namespaces = namespaces.difference(UnshareFlags::FILES);
    // SAFETY: without CLONE_FILES no other thread loses sight of a descriptor it owns.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }.map_err(Into::into)
}

/// Moves this thread into the namespace that `namespace` is a handle of; with `ProcessID`, its future children.
pub fn enter(namespace: impl AsFd, kind: LinkNameSpaceType) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).map_err(Into::into)
}

/// Replaces the session keyring by a new, empty one, so that keys of the node stay out of reach.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing is written. The result is the keyring's number.
    let keyring = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            ptr::null::<libc::c_char>(),
        )
    };
    check(keyring.min(0))
}

/// Host name of this thread's UTS namespace.
pub fn set_hostname(name: &str) -> io::Result<()> {
    rustix::system::sethostname(name.as_bytes()).map_err(Into::into)
}

/// An instruction of a system call filter (classic BPF).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterInstruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Adds a system call filter to this thread. Needs `CAP_SYS_ADMIN` or "no new privileges".
pub fn install_seccomp_filter(program: &[FilterInstruction]) -> io::Result<()> {
    let filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|instruction| libc::sock_filter {
            code: instruction.code,
            jt: instruction.jt,
            jf: instruction.jf,
            k: instruction.k,
        })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog {
        len,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which outlives the call, and checks it.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
}

fn check(result: i64) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
