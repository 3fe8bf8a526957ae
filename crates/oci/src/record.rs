//! What is kept on disk about pods and containers, and where: the daemon writes the specs, the shim writes what became
//! of the processes. Nothing of it outlives a crash of the machine in a useful way, so nothing is flushed.
//!
//! ```text
//! ROOT/pods/UID/pod.json              PodRecord
//!               shim.sock             the shim listens here
//!               shm/                  /dev/shm of the containers
//!               containers/ID/container.json   ContainerRecord
//!                             status.json      ContainerStatus, absent before the start
//!                             upper/ work/     writable layer
//!                             rootfs/          where the root file system is mounted for an OCI runtime
//!                             termination-log
//! ROOT/trash/                         directories that are being removed
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::runtime::OciRuntime;
use crate::spec::{ContainerSpec, PodSpec};
use crate::state::ContainerStatus;

/// A pod as its shim must know it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) spec: PodSpec,
    /// The pod's cgroup from the root of the hierarchies.
    pub(crate) cgroup: PathBuf,
    pub(crate) oci_runtime: OciRuntime,
}

/// A container as its shim must know it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) spec: ContainerSpec,
    pub(crate) created_at: SystemTime,
}

/// The directory of a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodDirectory(pub(crate) PathBuf);

impl PodDirectory {
    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("pod.json")
    }

    pub(crate) fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> ContainerDirectory {
        ContainerDirectory(self.containers().join(id))
    }
}

/// The directory of a container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerDirectory(pub(crate) PathBuf);

impl ContainerDirectory {
    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("container.json")
    }

    pub(crate) fn status(&self) -> PathBuf {
        self.0.join("status.json")
    }

    pub(crate) fn termination_log(&self) -> PathBuf {
        self.0.join("termination-log")
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    /// What the shim wrote last; nothing when the container was never started.
    pub(crate) fn read_status(&self) -> io::Result<Option<ContainerStatus>> {
        match read(&self.status()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        }
    }
}

/// Reads a record.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Writes a record so that a reader sees the old or the new one.
pub(crate) fn write(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, serde_json::to_vec(record)?)?;
    fs::rename(temporary, path)
}

/// Whether a name from outside can be a file name here and part of a cgroup's path.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.bytes().all(allowed)
}
