//! The file system of a container: an overlay of the image's layers, the kernel's file systems, the pod's volumes, and
//! covers over what tells of the node. Upstream counterpart: runc's `libcontainer/rootfs_linux.go`.
//!
//! The image is hostile: every path below its root is resolved by [`Root`], once, and used by descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use coracle_kernel::cgroup::Hierarchy;
use coracle_kernel::mount::{self, Attributes, Overlay, Propagation};
use coracle_kernel::root::Root;
use rustix::fs::{FileType, Mode, OFlags};

use super::{Failure, Launch, devices, words};
use crate::spec::{Mount, MountSource, Propagation as Wanted};

/// What `/proc` and `/sys` tell of the node: nothing of it is shown.
pub(crate) const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Files of `/proc` that change the node when they are written.
pub(crate) const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

const NO_SUID_DEV_EXEC: Attributes = Attributes::NO_SUID
    .and(Attributes::NO_DEV)
    .and(Attributes::NO_EXEC);

/// A volume whose source was opened.
struct Volume<'a> {
    mount: &'a Mount,
    tree: OwnedFd,
    directory: bool,
}

/// Builds the file system and makes it this process's root. Returns the file on which a terminal would be mounted.
pub(super) fn prepare(launch: &Launch<'_>) -> Result<OwnedFd, Failure> {
    let spec = launch.spec;
    // Copies of volumes are taken while this mount namespace still shares mounts with the node's, or a volume that
    // travels both ways could not.
    let mut volumes = volumes(&spec.mounts)?;
    let message = spec_message(launch);
    if let Some(mount) = &message {
        volumes.push(open_volume(mount)?);
    }
    let groups = cgroup_trees(launch)?;
    let shm = launch.pod_shm();
    let shm = mount::clone_tree(&shm, false).map_err(Failure::at(format!("clone {}", shm.display())))?;
    mount::set_propagation_everywhere(Propagation::Slave).map_err(Failure::at("make mounts private"))?;

    let overlay = Overlay {
        lower: &spec.layers,
        upper: &launch.directory.join("upper"),
        work: &launch.directory.join("work"),
        volatile: true,
    };
    let tree = overlay.mount().map_err(Failure::at("mount root file system"))?;
    // Anywhere: it becomes the root, and nothing of what it hides is looked up again.
    let place = Root::open_path(launch.directory)
        .map_err(Failure::at(format!("open {}", launch.directory.display())))?;
    mount::attach(&tree, &place).map_err(Failure::at("attach root file system"))?;
    let root = Root::new(tree);

    let build = Build { root: &root };
    build.kernel_file_systems(launch, groups, shm)?;
    volumes.sort_by_key(|volume| depth(&volume.mount.destination));
    for volume in volumes {
        build.volume(volume, spec.privileged)?;
    }
    if !spec.privileged && spec.mask_paths {
        build.cover()?;
    }
    let console = root
        .create_file(Path::new("/dev/console"))
        .map_err(Failure::at("make /dev/console"))?;
    mount::pivot_root(&root).map_err(Failure::at("pivot_root"))?;
    if spec.read_only_rootfs {
        mount::set_attributes(&root, Attributes::READ_ONLY, false)
            .map_err(Failure::at("make root read-only"))?;
    }
    Ok(console)
}

/// The file of the termination message, as a mount.
fn spec_message(launch: &Launch<'_>) -> Option<Mount> {
    let destination = &launch.spec.termination_message_path;
    (!destination.is_empty()).then(|| Mount {
        source: MountSource::Bind(launch.directory.join("termination-log")),
        destination: destination.clone(),
        read_only: false,
        propagation: Wanted::Private,
    })
}

impl Launch<'_> {
    fn pod_shm(&self) -> std::path::PathBuf {
        if self.pod.host_ipc {
            "/dev/shm".into()
        } else {
            self.pod_directory.join("shm")
        }
    }
}

/// Mounts are made in the order of their depth, so that none hides another.
fn depth(destination: &str) -> usize {
    Path::new(destination)
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .count()
}

fn volumes(mounts: &[Mount]) -> Result<Vec<Volume<'_>>, Failure> {
    mounts.iter().map(open_volume).collect()
}

fn open_volume(mount: &Mount) -> Result<Volume<'_>, Failure> {
    let failed = |error: io::Error| {
        let source = match &mount.source {
            MountSource::Bind(path) => path.display().to_string(),
            MountSource::Tmpfs { .. } => "tmpfs".to_owned(),
        };
        Failure(format!(
            "error mounting {source:?} to rootfs at {:?}: {}",
            mount.destination,
            words(&error)
        ))
    };
    let tree = match &mount.source {
        MountSource::Bind(path) => mount::clone_tree(path, true),
        MountSource::Tmpfs { size } => {
            let size = size.map(|size| size.to_string());
            let mut options = vec![("mode", "1777")];
            options.extend(size.as_deref().map(|size| ("size", size)));
            mount::filesystem("tmpfs", &options, Attributes::NO_SUID.and(Attributes::NO_DEV))
        }
    }
    .map_err(failed)?;
    if mount.read_only {
        mount::set_attributes(&tree, Attributes::READ_ONLY, false).map_err(failed)?;
    }
    let propagation = match mount.propagation {
        Wanted::Private => Propagation::Private,
        Wanted::HostToContainer => Propagation::Slave,
        Wanted::Bidirectional => Propagation::Shared,
    };
    mount::set_propagation(&tree, propagation).map_err(failed)?;
    let stat = rustix::fs::fstat(&tree).map_err(|error| failed(error.into()))?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(Volume {
        mount,
        tree,
        directory,
    })
}

/// With version 1 the container sees its own group of each hierarchy: name and tree of each. Version 2 is mounted anew in
/// a cgroup namespace.
fn cgroup_trees(launch: &Launch<'_>) -> Result<Vec<(String, OwnedFd)>, Failure> {
    if launch.hierarchy.wants_namespace() {
        return Ok(Vec::new());
    }
    let mut trees = Vec::new();
    for (name, directory) in launch.group.directories() {
        let tree = mount::clone_tree(&directory, false)
            .map_err(Failure::at(format!("clone {}", directory.display())))?;
        if !launch.spec.privileged {
            mount::set_attributes(&tree, Attributes::READ_ONLY.and(NO_SUID_DEV_EXEC), false)
                .map_err(Failure::at("make cgroup read-only"))?;
        }
        trees.push((name.strip_prefix("name=").unwrap_or(&name).to_owned(), tree));
    }
    Ok(trees)
}

/// A root file system under construction.
struct Build<'a> {
    root: &'a Root,
}

impl Build<'_> {
    fn kernel_file_systems(
        &self,
        launch: &Launch<'_>,
        groups: Vec<(String, OwnedFd)>,
        shm: OwnedFd,
    ) -> Result<(), Failure> {
        let privileged = launch.spec.privileged;
        let guarded = |attributes: Attributes| {
            if privileged {
                attributes
            } else {
                attributes.and(Attributes::READ_ONLY)
            }
        };
        self.mount("proc", &[], NO_SUID_DEV_EXEC, "/proc")?;
        self.mount(
            "tmpfs",
            &[("mode", "755"), ("size", "65536k")],
            Attributes::NO_SUID,
            "/dev",
        )?;
        self.device_files(launch)?;
        let terminals = [
            ("newinstance", ""),
            ("ptmxmode", "0666"),
            ("mode", "0620"),
            ("gid", "5"),
        ];
        self.mount(
            "devpts",
            &terminals,
            Attributes::NO_SUID.and(Attributes::NO_EXEC),
            "/dev/pts",
        )?;
        self.attach_directory(shm, "/dev/shm")?;
        self.mount("mqueue", &[], NO_SUID_DEV_EXEC, "/dev/mqueue")?;
        self.mount("sysfs", &[], guarded(NO_SUID_DEV_EXEC), "/sys")?;
        match launch.hierarchy {
            Hierarchy::V2(_) => self.mount("cgroup2", &[], guarded(NO_SUID_DEV_EXEC), "/sys/fs/cgroup"),
            Hierarchy::V1(_) => self.groups_of_version_1(groups, privileged),
        }
    }

    fn groups_of_version_1(&self, groups: Vec<(String, OwnedFd)>, privileged: bool) -> Result<(), Failure> {
        let top = mount::filesystem("tmpfs", &[("mode", "755")], NO_SUID_DEV_EXEC)
            .map_err(Failure::at("mount /sys/fs/cgroup"))?;
        let target = self.directory("/sys/fs/cgroup")?;
        mount::attach(&top, target).map_err(Failure::at("attach /sys/fs/cgroup"))?;
        for (name, tree) in groups {
            self.attach_directory(tree, &format!("/sys/fs/cgroup/{name}"))?;
            // Controllers that share a hierarchy are found by each name too.
            for controller in name.split(',').filter(|controller| *controller != name) {
                rustix::fs::symlinkat(name.as_str(), &top, controller).map_err(Failure::at("link cgroup"))?;
            }
        }
        if privileged {
            return Ok(());
        }
        mount::set_attributes(&top, Attributes::READ_ONLY, false)
            .map_err(Failure::at("make cgroups read-only"))
    }

    fn device_files(&self, launch: &Launch<'_>) -> Result<(), Failure> {
        // The modes are exact: nothing is to be taken from them.
        let mask = rustix::process::umask(Mode::empty());
        for node in devices::default_devices() {
            devices::make(self.root, &node)?;
        }
        for device in &launch.spec.devices {
            let node = devices::stat(&device.host_path, &device.container_path)
                .map_err(Failure::at(format!("stat {}", device.host_path.display())))?;
            devices::make(self.root, &node)?;
        }
        if launch.spec.privileged {
            for node in devices::host_devices().map_err(Failure::at("list devices"))? {
                devices::make(self.root, &node)?;
            }
        }
        let dev = self.directory("/dev")?;
        let links = [
            ("/proc/self/fd", "fd"),
            ("/proc/self/fd/0", "stdin"),
            ("/proc/self/fd/1", "stdout"),
            ("/proc/self/fd/2", "stderr"),
            ("/proc/kcore", "core"),
            ("pts/ptmx", "ptmx"),
        ];
        for (target, name) in links {
            rustix::fs::symlinkat(target, &dev, name).map_err(Failure::at(format!("link /dev/{name}")))?;
        }
        rustix::process::umask(mask);
        Ok(())
    }

    /// Mounts a new file system.
    fn mount(
        &self,
        kind: &str,
        options: &[(&str, &str)],
        attributes: Attributes,
        path: &str,
    ) -> Result<(), Failure> {
        let tree = mount::filesystem(kind, options, attributes)
            .map_err(Failure::at(format!("mount {kind} at {path}")))?;
        self.attach_directory(tree, path)
    }

    fn attach_directory(&self, tree: OwnedFd, path: &str) -> Result<(), Failure> {
        mount::attach(tree, self.directory(path)?).map_err(Failure::at(format!("attach {path}")))
    }

    fn directory(&self, path: &str) -> Result<OwnedFd, Failure> {
        self.root
            .create_dir_all(Path::new(path))
            .map_err(Failure::at(format!("make {path} in the root file system")))
    }

    fn volume(&self, volume: Volume<'_>, privileged: bool) -> Result<(), Failure> {
        let path = Path::new(&volume.mount.destination);
        let make = if volume.directory {
            self.root.create_dir_all(path)
        } else {
            self.root.create_file(path)
        };
        let failed = |error: &io::Error| {
            let what = if volume.directory { "directory" } else { "file" };
            Failure(format!(
                "error mounting {what} to rootfs at {:?}: {}",
                volume.mount.destination,
                words(error)
            ))
        };
        let target = make.map_err(|error| failed(&error))?;
        let file_system = rustix::fs::fstatfs(&target).map_err(|error| failed(&error.into()))?;
        if !privileged && file_system.f_type == rustix::fs::PROC_SUPER_MAGIC {
            // A link in the image that leads there, or a pod that wants to forge what /proc says.
            return Err(Failure(format!(
                "{:?} cannot be mounted because it is inside /proc",
                volume.mount.destination
            )));
        }
        mount::attach(volume.tree, target).map_err(|error| failed(&error))
    }

    /// Hides and protects what a container must not see or write in `/proc` and `/sys`.
    fn cover(&self) -> Result<(), Failure> {
        for path in READ_ONLY_PATHS {
            let Some(target) = self.existing(path)? else {
                continue;
            };
            let tree = mount::clone_tree_at(&target, Path::new(""), true)
                .map_err(Failure::at(format!("clone {path}")))?;
            mount::set_attributes(&tree, Attributes::READ_ONLY.and(NO_SUID_DEV_EXEC), true)
                .map_err(Failure::at(format!("make {path} read-only")))?;
            mount::attach(tree, target).map_err(Failure::at(format!("attach {path}")))?;
        }
        let null = self
            .root
            .open("/dev/null", OFlags::PATH)
            .map_err(Failure::at("open /dev/null"))?;
        let mut empty = None;
        for path in MASKED_PATHS {
            let Some(target) = self.existing(path)? else {
                continue;
            };
            let stat = rustix::fs::fstat(&target).map_err(Failure::at(format!("stat {path}")))?;
            let tree = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.empty_directory(&mut empty, &target)
            } else {
                mount::clone_tree_at(&null, Path::new(""), false).map(Some)
            };
            if let Some(tree) = tree.map_err(Failure::at("clone cover"))? {
                mount::attach(tree, target).map_err(Failure::at(format!("cover {path}")))?;
            }
        }
        Ok(())
    }

    /// A tree of one empty read-only directory. The first is attached to `target` at once, for only what is attached can
    /// be cloned; nothing is returned then.
    fn empty_directory(&self, empty: &mut Option<OwnedFd>, target: &OwnedFd) -> io::Result<Option<OwnedFd>> {
        if let Some(empty) = empty {
            return mount::clone_tree_at(empty.as_fd(), Path::new(""), false).map(Some);
        }
        let options = [("mode", "755"), ("size", "4k")];
        let tree = mount::filesystem("tmpfs", &options, NO_SUID_DEV_EXEC.and(Attributes::READ_ONLY))?;
        mount::attach(&tree, target)?;
        *empty = Some(tree);
        Ok(None)
    }

    fn existing(&self, path: &str) -> Result<Option<OwnedFd>, Failure> {
        match self.root.open(path, OFlags::PATH) {
            Ok(target) => Ok(Some(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::at(format!("open {path}"))(error)),
        }
    }
}
