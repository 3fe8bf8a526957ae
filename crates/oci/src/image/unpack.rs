//! Unpacks a layer's tar archive into a tree. The archive is hostile: every path is resolved inside the tree by [`Root`].
//! Upstream counterpart: containerd's `pkg/archive`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use coracle_kernel::root::{Root, remove_all, split};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::tar::{Entry, Kind, Reader, invalid};

const WHITEOUT: &[u8] = b".wh.";
/// Marks a directory whose contents in lower layers are gone.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names that start so are notes of the ancient aufs.
const AUFS: &[u8] = b".wh..wh.";
/// Deeper paths are nobody's files.
const MAX_COMPONENTS: usize = 255;
/// Unpacks `archive` into `root`.
pub(super) fn unpack(root: &Root, archive: impl Read) -> io::Result<()> {
    let mut archive = Reader::new(archive);
    let mut unpacker = Unpacker {
        root,
        written: BTreeSet::new(),
        directories: BTreeMap::new(),
    };
    let mut buffer = vec![0; 128 * 1024];
    while let Some(entry) = archive.next()? {
        unpacker
            .entry(&entry, &mut archive, &mut buffer)
            .map_err(|error| {
                let path = String::from_utf8_lossy(&entry.path);
                io::Error::new(error.kind(), format!("{path:?}: {error}"))
            })?;
    }
    unpacker.set_directory_times()
}

struct Unpacker<'a> {
    root: &'a Root,
    /// Paths that this layer has brought so far: an opaque marker does not remove them.
    written: BTreeSet<PathBuf>,
    /// Times of directories, which writing into them would change: set at the end.
    directories: BTreeMap<PathBuf, i64>,
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &Entry, contents: &mut impl Read, buffer: &mut [u8]) -> io::Result<()> {
        let path = normalised(&entry.path)?;
        if path.as_os_str().is_empty() {
            // The root itself: only its attributes count.
            if entry.kind == Kind::Directory {
                let root = self.root.open("", OFlags::RDONLY | OFlags::DIRECTORY)?;
                apply(&root, entry)?;
                self.directories.insert(path, entry.modified);
            }
            return Ok(());
        }
        let (parent_path, name) = split(&path)?;
        // Missing directories are made, where the archive does not mention them.
        let parent = self.root.create_dir_all(parent_path)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(&parent, parent_path, name.as_bytes(), hidden);
        }
        self.make_room(&parent, name, entry.kind)?;
        match entry.kind {
            Kind::Directory => {
                match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                    Err(Errno::EXIST) => {}
                    result => result?,
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
                apply(&directory, entry)?;
                self.directories.insert(path.clone(), entry.modified);
            }
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?);
                copy(contents, &mut file, buffer)?;
                apply(&file, entry)?;
                rustix::fs::futimens(&file, &times(entry.modified))?;
            }
            Kind::HardLink => self.hard_link(&entry.link, &parent, name)?,
            Kind::Symlink => {
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), &parent, name)?;
                apply_to_node(&parent, name, entry)?;
            }
            Kind::Character | Kind::Block | Kind::Fifo => {
                make_node(&parent, name, entry)?;
                apply_to_node(&parent, name, entry)?;
            }
        }
        self.written.insert(path);
        Ok(())
    }

    /// Removes what is in the way of an entry: anything, except that directories stay directories.
    fn make_room(&self, parent: &OwnedFd, name: &OsStr, kind: Kind) -> io::Result<()> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if directory && kind == Kind::Directory {
                    Ok(())
                } else {
                    remove_all(parent, name)
                }
            }
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn whiteout(&self, parent: &OwnedFd, parent_path: &Path, name: &[u8], hidden: &[u8]) -> io::Result<()> {
        if name == OPAQUE {
            return self.clear(parent, parent_path);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(invalid("whiteout of nothing"));
        }
        remove_all(parent, OsStr::from_bytes(hidden))
    }

    /// Removes what lower layers have put into a directory, and keeps what this one has.
    fn clear(&self, directory: &OwnedFd, path: &Path) -> io::Result<()> {
        let readable = rustix::fs::openat(
            directory,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        for entry in rustix::fs::Dir::new(readable)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let path = path.join(name);
            if !self
                .written
                .range(path.clone()..)
                .next()
                .is_some_and(|own| own.starts_with(&path))
            {
                remove_all(directory, name)?;
                continue;
            }
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                self.clear(&rustix::fs::openat(directory, name, flags, Mode::empty())?, &path)?;
            }
        }
        Ok(())
    }

    fn hard_link(&self, target: &[u8], parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let target = normalised(target)?;
        let (target_parent, target_name) = split(&target)?;
        let target_parent = self.root.open(target_parent, OFlags::PATH | OFlags::DIRECTORY)?;
        // Without following: a link to a symbolic link is one to the link itself.
        Ok(rustix::fs::linkat(
            &target_parent,
            target_name,
            parent,
            name,
            AtFlags::empty(),
        )?)
    }

    /// Deepest first, or setting one would change the time of the one above.
    fn set_directory_times(&self) -> io::Result<()> {
        for (path, modified) in self.directories.iter().rev() {
            match self
                .root
                .open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
            {
                Ok(directory) => rustix::fs::futimens(&directory, &times(*modified))?,
                // Replaced or removed by a later entry.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A path below the root, without `.` and `..`. One that would leave the root is refused.
fn normalised(path: &[u8]) -> io::Result<PathBuf> {
    let mut normal = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                if !normal.pop() {
                    return Err(invalid("path leads out of the image"));
                }
            }
            Component::Normal(name) => normal.push(name),
        }
    }
    if normal.components().count() > MAX_COMPONENTS {
        return Err(invalid("path is too deep"));
    }
    Ok(normal)
}

fn make_node(parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
    let kind = match (entry.kind, entry.major, entry.minor) {
        (Kind::Fifo, ..) => FileType::Fifo,
        (Kind::Block, ..) => FileType::BlockDevice,
        // To the kernel's overlays this one means that a file of a lower layer is gone.
        (_, 0, 0) => return Err(invalid("device 0:0")),
        _ => FileType::CharacterDevice,
    };
    let device = rustix::fs::makedev(entry.major, entry.minor);
    Ok(rustix::fs::mknodat(
        parent,
        name,
        kind,
        Mode::RUSR | Mode::WUSR,
        device,
    )?)
}

/// Sets the attributes of what cannot be opened without side effects.
fn apply_to_node(parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if entry.kind != Kind::Symlink {
        // Just made by us and not a link, so following cannot lead away.
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(
        parent,
        name,
        &times(entry.modified),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Owner first, for changing it takes set-user-ID bits and capabilities away; then mode, then extended attributes.
fn apply(file: impl AsFd, entry: &Entry) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in &entry.attributes {
        // These steer overlays; an image has no say in that.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        match rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty()) {
            // This file system or kernel has no place for it.
            Err(Errno::OPNOTSUPP) => {}
            Err(Errno::PERM) if name != b"security.capability" => {}
            result => result?,
        }
    }
    Ok(())
}

fn times(modified: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: modified,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn copy(from: &mut impl Read, to: &mut File, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match from.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
