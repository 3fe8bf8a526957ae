//! A directory tree whose contents are not trusted: paths are resolved as if it were `/`, so that symbolic links and
//! `..` never lead out of it (`openat2` with `RESOLVE_IN_ROOT`). For image layers that are unpacked and for mount
//! targets inside containers.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The root of such a tree.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

impl Root {
    /// Takes a handle of the root directory.
    pub fn new(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// Opens the tree at `path`, which is trusted.
    pub fn open_path(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::new(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens a path, following symbolic links unless `flags` has `NOFOLLOW`. `RESOLVE_IN_ROOT` may ask for another
    /// try when something is renamed at the same time (`EAGAIN`).
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
        let path = path.as_ref();
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(
                &self.directory,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Opens a directory (as `O_PATH`), making it and its parents with mode 0755 when absent. Where a symbolic link
    /// leads nowhere, what it names is made.
    pub fn create_dir_all(&self, path: &Path) -> io::Result<OwnedFd> {
        self.create_dirs(path, MAX_LINKS)
    }

    fn create_dirs(&self, path: &Path, links: u8) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags) {
            Err(error) if is_absent(&error) => {}
            result => return result,
        }
        // Name by name: a symbolic link on the way must be followed, in the root, before the next one is looked up.
        let mut prefix = PathBuf::new();
        let mut current = self.open("", flags)?;
        for component in path.components() {
            prefix.push(component);
            current = match self.open(&prefix, flags) {
                Err(error) if is_absent(&error) => {
                    let Component::Normal(name) = component else {
                        return Err(error);
                    };
                    match rustix::fs::mkdirat(&current, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) => {}
                        Err(Errno::EXIST) => {
                            self.create_dirs(&linked(&prefix, &current, name)?, one_less(links)?)?;
                        }
                        Err(error) => return Err(error.into()),
                    }
                    self.open(&prefix, flags)?
                }
                result => result?,
            };
        }
        Ok(current)
    }

    /// Opens a file (as `O_PATH`) of any type, making an empty one and its parents when absent. Where a symbolic link
    /// leads nowhere, what it names is made.
    pub fn create_file(&self, path: &Path) -> io::Result<OwnedFd> {
        self.create_file_behind(path, MAX_LINKS)
    }

    fn create_file_behind(&self, path: &Path, links: u8) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH) {
            Err(error) if is_absent(&error) => {}
            result => return result,
        }
        let (parent_path, name) = split(path)?;
        let parent = self.create_dirs(parent_path, links)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
            Ok(_) => self.open(path, OFlags::PATH),
            Err(Errno::EXIST) => self.create_file_behind(&linked(path, &parent, name)?, one_less(links)?),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a regular file of at most `limit` bytes. Anything else (a FIFO would block for ever) is an error.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        use std::io::Read;
        let file = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut contents = Vec::new();
        std::fs::File::from(file)
            .take(limit + 1)
            .read_to_end(&mut contents)?;
        if contents.len() as u64 > limit {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        Ok(contents)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: u8 = 40;

fn one_less(links: u8) -> io::Result<u8> {
    links
        .checked_sub(1)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ELOOP))
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

/// Where the symbolic link `name` in `directory`, which is the last name of `path`, leads.
fn linked(path: &Path, directory: &OwnedFd, name: &OsStr) -> io::Result<PathBuf> {
    let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
    Ok(path
        .parent()
        .unwrap_or(Path::new(""))
        .join(OsStr::from_bytes(target.to_bytes())))
}

/// Splits a path into its parent and last name; `EINVAL` when it has none or ends in `..`.
pub fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    Ok((path.parent().unwrap_or(Path::new("")), name))
}

/// Removes `name` in `directory` and everything below it; success when it is absent. Symbolic links are not followed.
/// Takes three descriptors and no stack however deep the tree is: a hostile image or container may nest without limit.
/// Nobody else may change the tree meanwhile.
pub fn remove_all(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut current = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
    let mut below: Vec<std::ffi::CString> = Vec::new();
    loop {
        if let Some(child) = remove_entries(&current)? {
            current = rustix::fs::openat(&current, &child, flags, Mode::empty())?;
            below.push(child);
        } else if let Some(done) = below.pop() {
            current = rustix::fs::openat(&current, "..", flags, Mode::empty())?;
            rustix::fs::unlinkat(&current, &done, AtFlags::REMOVEDIR)?;
        } else {
            return Ok(rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR)?);
        }
    }
}

/// Removes a directory's entries up to the first that is a directory, which it returns.
fn remove_entries(directory: &OwnedFd) -> io::Result<Option<std::ffi::CString>> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Not tried at once: a removal that fails costs the kernel a walk over all that it has cached below.
        return Ok(Some(name.to_owned()));
    }
    Ok(None)
}

/// Removes the tree at `path`; see [`remove_all`].
pub fn remove_path(path: &Path) -> io::Result<()> {
    let (parent, name) = split(path)?;
    match rustix::fs::open(
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(parent) => remove_all(parent, name),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
