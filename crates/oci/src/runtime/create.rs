//! Creating containers: everything on disk and in cgroups that a launch needs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use coracle_kernel::cgroup::{DeviceRule, Group, Limits};

use super::Runtime;
use super::pod::Pod;
use crate::blocking::blocking;
use crate::launch;
use crate::record::{self, ContainerDirectory, ContainerRecord};
use crate::spec::{ContainerSpec, Resources};
use crate::state::ContainerStatus;
use crate::{Error, Result};

impl Runtime {
    /// Creates a container. No process runs before [`start`](Self::start).
    pub async fn create_container(&self, pod_uid: &str, spec: ContainerSpec) -> Result<()> {
        validate(&spec)?;
        if self.find(&spec.id).is_ok() {
            return Err(Error::AlreadyExists(format!("container {}", spec.id)));
        }
        let pod = self.inner.pods.lock().get(pod_uid).cloned();
        let pod = pod.ok_or_else(|| Error::PodNotFound(pod_uid.to_owned()))?;
        let _removal = pod.removal.lock().await;
        let (runtime, in_blocking) = (self.clone(), pod.clone());
        let record = blocking(move || {
            let record = ContainerRecord {
                spec,
                created_at: SystemTime::now(),
            };
            let made = runtime.make_container(&in_blocking, &record);
            if made.is_err()
                && let Err(error) = runtime.erase_container(&in_blocking, &record.spec.id)
            {
                tracing::warn!(container = record.spec.id, %error, "cannot clean up after failed creation");
            }
            made.map(|()| record)
        })
        .await?;
        pod.add(record.spec, record.created_at, ContainerStatus::Created);
        Ok(())
    }

    fn make_container(&self, pod: &Pod, record: &ContainerRecord) -> Result<()> {
        let spec = &record.spec;
        let directory = pod.directory.container(&spec.id);
        for part in ["upper", "work"] {
            let path = directory.0.join(part);
            fs::create_dir_all(&path).map_err(Error::io("make", path))?;
        }
        // The record first: a daemon that finds one takes the layers into use again.
        record::write(&directory.record(), record).map_err(Error::io("write", directory.record()))?;
        self.inner.uses.hold(&spec.id, &spec.layers)?;
        own_root(&directory, spec)?;
        if !spec.termination_message_path.is_empty() {
            let path = directory.termination_log();
            let make = || {
                fs::write(&path, "")?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
            };
            make().map_err(Error::io("make", &path))?;
        }
        let devices = launch::allowed_devices(spec).map_err(Error::io("look up devices of", &spec.id))?;
        make_group(&pod.group.child(&spec.id), &spec.resources, Some(&devices))
    }
}

/// The root directory of the container is that of its writable layer: it gets what the image's has.
fn own_root(directory: &ContainerDirectory, spec: &ContainerSpec) -> Result<()> {
    let Some(top) = spec.layers.last() else {
        return Ok(());
    };
    let upper = directory.0.join("upper");
    let copy = || {
        let metadata = fs::metadata(top)?;
        std::os::unix::fs::chown(&upper, Some(metadata.uid()), Some(metadata.gid()))?;
        fs::set_permissions(&upper, metadata.permissions())
    };
    copy().map_err(Error::io("prepare", &upper))
}

/// Makes a cgroup with limits and, for containers, rules for devices.
pub(super) fn make_group(group: &Group, resources: &Resources, devices: Option<&[DeviceRule]>) -> Result<()> {
    let limits = Limits {
        cpu_shares: resources.cpu_shares,
        cpu_quota: resources.cpu_quota,
        cpu_period: resources.cpu_period,
        memory: resources.memory_limit,
        pids: resources.pids_limit,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        oom_group: devices.is_some() && resources.memory_limit.is_some(),
    };
    group.create().map_err(Error::io("make cgroup", group.path()))?;
    group
        .set(&limits)
        .map_err(Error::io("limit cgroup", group.path()))?;
    devices
        .map_or(Ok(()), |rules| group.set_devices(rules))
        .map_err(Error::io("set devices of cgroup", group.path()))
}

fn validate(spec: &ContainerSpec) -> Result<()> {
    let invalid = |message: String| Err(Error::InvalidSpec(message));
    if !record::is_name(&spec.id) {
        return invalid(format!("invalid container id {:?}", spec.id));
    }
    if spec.argv.first().is_none_or(String::is_empty) {
        return invalid("no command specified".to_owned());
    }
    if spec.layers.is_empty() {
        return invalid("the image has no layers".to_owned());
    }
    if let Some(mount) = spec
        .mounts
        .iter()
        .find(|mount| !Path::new(&mount.destination).is_absolute())
    {
        return invalid(format!("mount path {:?} is not absolute", mount.destination));
    }
    if !spec.cwd.is_empty() && !Path::new(&spec.cwd).is_absolute() {
        return invalid(format!("working directory {:?} is not absolute", spec.cwd));
    }
    let escapes = |path: &Path| path.is_absolute() || path.components().any(|part| part.as_os_str() == "..");
    if escapes(&spec.log_path) {
        return invalid(format!(
            "log path {:?} leads out of the log directory",
            spec.log_path
        ));
    }
    launch::wanted_capabilities(&spec.capabilities, spec.privileged)
        .map(|_| ())
        .map_err(Error::InvalidSpec)
}
