//! Device files of a container and the rules that let it use them. Upstream counterpart: containerd's
//! `oci.WithDefaultUnixDevices`, runc's `libcontainer/specconv` (`AllowedDevices`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_kernel::cgroup::{DeviceKind, DeviceRule};
use coracle_kernel::root::{Root, split};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid};

use super::Failure;
use crate::spec::ContainerSpec;

/// A device file to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Path in the container.
    pub(crate) path: String,
    pub(crate) kind: DeviceKind,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The devices every container has.
pub(crate) fn default_devices() -> impl Iterator<Item = Node> {
    let known = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ];
    known.into_iter().map(|(name, major, minor)| Node {
        path: format!("/dev/{name}"),
        kind: DeviceKind::Character,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    })
}

/// The device at `host_path`, as it shall appear at `path`.
pub(crate) fn stat(host_path: &Path, path: &str) -> io::Result<Node> {
    let stat = rustix::fs::statat(CWD, host_path, AtFlags::empty())?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => DeviceKind::Character,
        FileType::BlockDevice => DeviceKind::Block,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is not a device", host_path.display()),
            ));
        }
    };
    Ok(Node {
        path: path.to_owned(),
        kind,
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
        mode: stat.st_mode & 0o777,
        uid: stat.st_uid,
        gid: stat.st_gid,
    })
}

/// All devices of the node, for privileged containers; without terminals, which every container has of its own.
pub(crate) fn host_devices() -> io::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    let mut directories = vec![PathBuf::from("/dev")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let Some(text) = path.to_str() else { continue };
            if kind.is_dir() {
                if !matches!(
                    text,
                    "/dev/pts" | "/dev/shm" | "/dev/mqueue" | "/dev/fd" | "/dev/.lxc"
                ) {
                    directories.push(path);
                }
            } else if !kind.is_symlink() && !matches!(text, "/dev/console" | "/dev/ptmx" | "/dev/tty") {
                // Sockets, FIFOs and devices that go away meanwhile.
                nodes.extend(stat(&path, text));
            }
        }
    }
    Ok(nodes)
}

/// Makes a device file; one that is there already stays.
pub(super) fn make(root: &Root, node: &Node) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::at::<io::Error>(format!("make device {}", node.path))(error);
    let (parent, name) = split(Path::new(&node.path)).map_err(failed)?;
    let parent: OwnedFd = root.create_dir_all(parent).map_err(failed)?;
    let kind = if node.kind == DeviceKind::Block {
        FileType::BlockDevice
    } else {
        FileType::CharacterDevice
    };
    let device = rustix::fs::makedev(node.major, node.minor);
    match rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(node.mode), device) {
        Err(rustix::io::Errno::EXIST) => return Ok(()),
        result => result.map_err(|error| failed(error.into()))?,
    }
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    if (node.uid, node.gid) != (0, 0) {
        rustix::fs::chownat(
            parent.as_fd(),
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// What the control group lets a container do with devices.
pub(crate) fn allowed(spec: &ContainerSpec) -> io::Result<Vec<DeviceRule>> {
    let rule = |kind, major, minor, permissions: &str| DeviceRule {
        kind,
        major,
        minor,
        read: permissions.contains('r'),
        write: permissions.contains('w'),
        mknod: permissions.contains('m'),
    };
    if spec.privileged {
        return Ok(vec![rule(DeviceKind::All, None, None, "rwm")]);
    }
    let mut rules = vec![
        // Making a device file is harmless as long as it cannot be opened.
        rule(DeviceKind::Character, None, None, "m"),
        rule(DeviceKind::Block, None, None, "m"),
        // Pseudo-terminals: the multiplexer and its slaves.
        rule(DeviceKind::Character, Some(5), Some(2), "rwm"),
        rule(DeviceKind::Character, Some(136), None, "rwm"),
    ];
    rules.extend(default_devices().map(|node| rule(node.kind, Some(node.major), Some(node.minor), "rwm")));
    for device in &spec.devices {
        let node = stat(&device.host_path, &device.container_path)?;
        rules.push(rule(
            node.kind,
            Some(node.major),
            Some(node.minor),
            &device.permissions,
        ));
    }
    Ok(rules)
}
