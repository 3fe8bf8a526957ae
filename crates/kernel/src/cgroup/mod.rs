//! Control groups, version 1 (one hierarchy a controller, also beside an empty version 2 hierarchy) and version 2,
//! behind one seam. Upstream counterpart: `opencontainers/cgroups` (formerly in runc), its cgroupfs drivers.

mod devices;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

pub use devices::{DeviceKind, DeviceRule};

/// Limits and weights. Absent fields are left as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `cpu.shares` of version 1 (2…262144).
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU a period; negative for no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds of a period.
    pub cpu_period: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// CPUs, such as `0-1`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, such as `0`.
    pub cpuset_mems: Option<String>,
    /// Version 2: when memory runs out, kill all processes of the group instead of one.
    pub oom_group: bool,
}

/// What a group uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes, page cache included.
    pub memory: u64,
    /// Bytes of page cache that could be given back at once.
    pub memory_inactive_file: u64,
    /// Bytes of anonymous memory.
    pub memory_anonymous: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// The cgroup file systems of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// Version 1.
    V1(v1::Mounts),
    /// Version 2 only: where it is mounted.
    V2(PathBuf),
}

impl Hierarchy {
    /// Finds what is mounted. `NotFound` when there is neither a memory controller of version 1 nor version 2.
    pub fn detect() -> io::Result<Self> {
        Self::from_mountinfo(&fs::read_to_string("/proc/self/mountinfo")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted"))
    }

    fn from_mountinfo(mountinfo: &str) -> Option<Self> {
        let mut v1 = v1::Mounts::default();
        let mut v2 = None;
        for line in mountinfo.lines() {
            // … (5) mount point, options, optional fields, "-", type, source, super options
            let Some((front, back)) = line.split_once(" - ") else {
                continue;
            };
            let (Some(point), mut back) = (front.split(' ').nth(4), back.split(' ')) else {
                continue;
            };
            match back.next() {
                Some("cgroup") => v1.add(Path::new(point), back.nth(1).unwrap_or_default()),
                Some("cgroup2") => {
                    v1.add_other(Path::new(point));
                    v2.get_or_insert_with(|| PathBuf::from(point));
                }
                _ => {}
            }
        }
        if v1.has("memory") {
            Some(Self::V1(v1))
        } else {
            v2.map(Self::V2)
        }
    }

    /// A handle of the group at `path` (relative to the root of each hierarchy), whether it exists or not.
    pub fn group(&self, path: &Path) -> Group {
        Group {
            hierarchy: self.clone(),
            path: path.strip_prefix("/").unwrap_or(path).to_owned(),
        }
    }

    /// Whether processes should get a cgroup namespace of their own, which hides the path of their group. With version 1
    /// container runtimes bind-mount the group's directories instead.
    pub fn wants_namespace(&self) -> bool {
        matches!(self, Self::V2(_))
    }
}

/// A control group: one directory, or one in each hierarchy of version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    hierarchy: Hierarchy,
    path: PathBuf,
}

impl Group {
    /// Path from the root of the hierarchies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The group of this name below this one, whether it exists or not.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self {
            hierarchy: self.hierarchy.clone(),
            path: self.path.join(name),
        }
    }

    /// Name and directory of each hierarchy's part; the name is empty for version 2.
    pub fn directories(&self) -> Vec<(String, PathBuf)> {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => mounts.directories(&self.path),
            Hierarchy::V2(root) => vec![(String::new(), root.join(&self.path))],
        }
    }

    /// Makes the group and the groups above it. Success when it exists.
    pub fn create(&self) -> io::Result<()> {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => mounts.create(&self.path),
            Hierarchy::V2(root) => v2::create(root, &self.path),
        }
    }

    /// Sets limits.
    pub fn set(&self, limits: &Limits) -> io::Result<()> {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => mounts.set(&self.path, limits),
            Hierarchy::V2(root) => v2::set(&root.join(&self.path), limits),
        }
    }

    /// Forbids all devices but those that a rule allows.
    pub fn set_devices(&self, rules: &[DeviceRule]) -> io::Result<()> {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => mounts.set_devices(&self.path, rules),
            Hierarchy::V2(root) => devices::attach(&root.join(&self.path), rules),
        }
    }

    /// Moves the calling process, which must have one thread only, into the group.
    pub fn join(&self) -> io::Result<()> {
        // With version 1 as a thread that moves itself: moving a process makes the kernel wait until no process of the
        // machine forks or ends, which takes milliseconds in each hierarchy. Version 2 moves processes only.
        let file = if matches!(self.hierarchy, Hierarchy::V2(_)) {
            "cgroup.procs"
        } else {
            "tasks"
        };
        self.directories()
            .iter()
            .try_for_each(|(_, directory)| write(&directory.join(file), "0"))
    }

    /// What the group uses.
    pub fn usage(&self) -> io::Result<Usage> {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => mounts.usage(&self.path),
            Hierarchy::V2(root) => v2::usage(&root.join(&self.path)),
        }
    }

    /// How many processes of the group the kernel has killed for want of memory.
    pub fn oom_kills(&self) -> io::Result<u64> {
        let file = match &self.hierarchy {
            Hierarchy::V1(mounts) => mounts
                .directory("memory", &self.path)
                .map(|dir| dir.join("memory.oom_control")),
            Hierarchy::V2(root) => Some(root.join(&self.path).join("memory.events")),
        };
        file.map_or(Ok(0), |file| Ok(field(&fs::read_to_string(file)?, "oom_kill")))
    }

    /// Processes in the group, not in the groups below it.
    pub fn processes(&self) -> io::Result<Vec<Pid>> {
        let Some((_, directory)) = self.directories().into_iter().next() else {
            return Ok(Vec::new());
        };
        match fs::read_to_string(directory.join("cgroup.procs")) {
            Ok(list) => Ok(list
                .lines()
                .filter_map(|line| Pid::from_raw(line.parse().ok()?))
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Kills every process of the group and waits until they are gone, blocking. `TimedOut` when the kernel does not
    /// let go of one within ten seconds (a process stuck in a device driver).
    pub fn kill(&self) -> io::Result<()> {
        // A process may fork before its signal arrives: until the group is seen empty.
        loop {
            let mut dying = Vec::new();
            for pid in self.processes()? {
                // Gone already is as good.
                if let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                    let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
                    dying.push(process);
                }
            }
            if dying.is_empty() {
                return Ok(());
            }
            for process in dying {
                let mut poll = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
                let limit = Timespec {
                    tv_sec: 10,
                    tv_nsec: 0,
                };
                if rustix::event::poll(&mut poll, Some(&limit))? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }

    fn all_directories(&self) -> Vec<PathBuf> {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => mounts.all_directories(&self.path),
            Hierarchy::V2(root) => vec![root.join(&self.path)],
        }
    }

    /// Removes the group, which must have no processes, and the groups below it. Success when it is absent.
    pub fn remove(&self) -> io::Result<()> {
        self.all_directories()
            .iter()
            .try_for_each(|directory| remove_tree(directory))
    }

    /// Kills every process of the group and of the groups below it, and removes them all. Success when it is absent.
    pub fn delete(&self) -> io::Result<()> {
        for name in self.children()? {
            self.child(&name).delete()?;
        }
        self.kill()?;
        self.remove()
    }

    /// Names of the groups below this one, in any hierarchy.
    fn children(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for directory in self.all_directories() {
            let entries = match fs::read_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                result => result?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir()
                    && let Ok(name) = entry.file_name().into_string()
                {
                    names.insert(name);
                }
            }
        }
        Ok(names)
    }

    /// Removes the groups above this one, up to but without `top`, as long as they are empty.
    pub fn remove_empty_parents(&self, top: &Path) {
        let top = top.strip_prefix("/").unwrap_or(top);
        for ancestor in self
            .path
            .ancestors()
            .skip(1)
            .take_while(|path| path.starts_with(top) && *path != top)
        {
            for directory in self.hierarchy.group(ancestor).all_directories() {
                // Still in use by another group: that one's removal will come back to it.
                let _ = fs::remove_dir(directory);
            }
        }
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        result => return result,
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    // Control files take a value in one write and must not be created or truncated.
    use std::io::Write;
    let write = || {
        fs::OpenOptions::new()
            .write(true)
            .open(file)?
            .write_all(value.as_bytes())
    };
    write().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("write {value:?} to {}: {error}", file.display()),
        )
    })
}

fn read_number(file: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    text.trim().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {text:?}", file.display()),
        )
    })
}

/// The number after `key` in a file of `key number` lines; zero when absent.
fn field(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}
