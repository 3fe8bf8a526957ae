//! Mounts by the descriptor-based API (`fsopen`, `open_tree`, `move_mount`): a mount is made and configured before
//! anybody can see it, and attached to a directory that was resolved once. Upstream counterpart: runc's
//! `libcontainer/rootfs_linux.go`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

/// Attributes of a mount, as opposed to those of its file system. Values of `struct mount_attr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u64);

impl Attributes {
    /// No writes.
    pub const READ_ONLY: Self = Self(MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64);
    /// Set-user-ID bits mean nothing.
    pub const NO_SUID: Self = Self(MountAttrFlags::MOUNT_ATTR_NOSUID.bits() as u64);
    /// Device files cannot be opened.
    pub const NO_DEV: Self = Self(MountAttrFlags::MOUNT_ATTR_NODEV.bits() as u64);
    /// Programs cannot be executed.
    pub const NO_EXEC: Self = Self(MountAttrFlags::MOUNT_ATTR_NOEXEC.bits() as u64);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How mounts and unmounts travel between copies of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// From the original to this one.
    Slave,
    /// Both ways.
    Shared,
}

impl Propagation {
    fn flag(self) -> MountPropagationFlags {
        match self {
            Self::Private => MountPropagationFlags::PRIVATE,
            Self::Slave => MountPropagationFlags::DOWNSTREAM,
            Self::Shared => MountPropagationFlags::SHARED,
        }
    }
}

/// Makes a mount of a new file system instance (`proc`, `tmpfs`, `sysfs`, `devpts`, …) that is attached nowhere yet.
pub fn filesystem(kind: &str, options: &[(&str, &str)], attributes: Attributes) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, *key)?;
        } else {
            rustix::mount::fsconfig_set_string(&context, *key, *value)?;
        }
    }
    finish(&context, attributes)
}

fn finish(context: &OwnedFd, attributes: Attributes) -> io::Result<OwnedFd> {
    rustix::mount::fsconfig_create(context)?;
    let flags = MountAttrFlags::from_bits_retain(u32::try_from(attributes.0).unwrap_or_default());
    Ok(rustix::mount::fsmount(
        context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        flags,
    )?)
}

/// An overlay of directories.
#[derive(Clone, Debug)]
pub struct Overlay<'a> {
    /// Read-only directories, lowest first; at least one.
    pub lower: &'a [PathBuf],
    /// Takes the changes.
    pub upper: &'a Path,
    /// Empty directory on the file system of `upper`.
    pub work: &'a Path,
    /// Never write back on unmount or `fsync`: for changes that are worth nothing after a crash. Unmounting would
    /// otherwise flush the whole file system of `upper`.
    pub volatile: bool,
}

impl Overlay<'_> {
    /// Makes the mount, attached nowhere yet. Kernels before 6.5 take the lower directories in one string only.
    pub fn mount(&self) -> io::Result<OwnedFd> {
        match self.configure(true) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.configure(false),
            result => result,
        }
    }

    fn configure(&self, one_by_one: bool) -> io::Result<OwnedFd> {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = |key: &str, value: &Path| rustix::mount::fsconfig_set_string(&context, key, value);
        let upmost_first = self.lower.iter().rev();
        if one_by_one {
            upmost_first
                .into_iter()
                .try_for_each(|layer| set("lowerdir+", layer))?;
        } else {
            let mut joined = std::ffi::OsString::new();
            for layer in upmost_first {
                if !joined.is_empty() {
                    joined.push(":");
                }
                joined.push(layer);
            }
            set("lowerdir", Path::new(&joined))?;
        }
        set("upperdir", self.upper)?;
        set("workdir", self.work)?;
        if self.volatile {
            rustix::mount::fsconfig_set_flag(&context, "volatile")?;
        }
        finish(&context, Attributes::default())
    }
}

/// Copies the mount (or the part of it) at `path`: a bind mount that is attached nowhere yet.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree_at(CWD, path, recursive)
}

/// As [`clone_tree`], of what `directory` is a handle of when `path` is empty.
pub fn clone_tree_at(directory: impl AsFd, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(directory, path, flags)?)
}

/// Attaches a mount made by this module on the file or directory that `target` is a handle of.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Sets attributes of the mount that `mount` is a handle of, of those below it too with `recursive`.
pub fn set_attributes(mount: impl AsFd, attributes: Attributes, recursive: bool) -> io::Result<()> {
    mount_setattr(mount, attributes.0, 0, recursive)
}

/// Sets the propagation of the mount that `mount` is a handle of and of those below it.
pub fn set_propagation(mount: impl AsFd, propagation: Propagation) -> io::Result<()> {
    mount_setattr(mount, 0, u64::from(propagation.flag().bits()), true)
}

fn mount_setattr(mount: impl AsFd, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure outlives the call and its size is passed along; the empty path is a C string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets the propagation of every mount of this mount namespace.
pub fn set_propagation_everywhere(propagation: Propagation) -> io::Result<()> {
    Ok(rustix::mount::mount_change(
        "/",
        propagation.flag() | MountPropagationFlags::REC,
    )?)
}

/// Makes the mount whose root directory `root` is the root of this mount namespace and detaches everything else.
pub fn pivot_root(root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(&root)?;
    // Old and new root on one directory: no directory for the old one is needed inside the new one.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Unmounts lazily; success when nothing is mounted there.
pub fn detach(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Unmounts lazily all that this mount namespace has at `path` and below it, also what is mounted twice. Success when
/// there is no such path.
pub fn detach_below(path: &Path) -> io::Result<()> {
    let path = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    // What was mounted last goes first: it is below, or on top of, what was mounted before.
    mount_points(&fs::read("/proc/self/mountinfo")?)
        .iter()
        .rev()
        .filter(|point| point.starts_with(&path))
        .try_for_each(|point| detach(point))
}

/// The fifth field of each line.
fn mount_points(mountinfo: &[u8]) -> Vec<PathBuf> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
        .collect()
}

/// The kernel writes blanks, tabs, line ends and backslashes as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                out.push(
                    digits
                        .iter()
                        .fold(0, |value, digit| (value << 3) | (digit - b'0')),
                );
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
