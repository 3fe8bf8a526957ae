//! The image store: archives and registries in, unpacked layers out. Upstream counterpart: the image service of
//! `staging/src/k8s.io/cri-api`, as containerd implements it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An image that is present on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `sha256:…` of the image configuration, as `imageID` shows it.
    pub id: String,
    /// Names with tag, such as `docker.io/library/busybox:latest`.
    pub references: Vec<String>,
    /// Names with digest, such as `docker.io/library/busybox@sha256:…`; empty for loaded archives without a manifest.
    pub digests: Vec<String>,
    /// How to run it.
    pub config: ImageConfig,
    /// Directories of the unpacked layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// Bytes of the layers as they were transferred.
    pub size: u64,
}

/// The part of an image configuration that concerns running it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub cmd: Vec<String>,
    /// `ENV`, `NAME=value`.
    pub env: Vec<String>,
    /// `USER`, as written.
    pub user: String,
    /// `WORKDIR`.
    pub working_dir: String,
    /// `EXPOSE`, such as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// `VOLUME`.
    pub volumes: Vec<String>,
    /// `STOPSIGNAL`, such as `SIGQUIT` or `3`.
    pub stop_signal: Option<String>,
}

/// Proof of identity for a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// A bearer token the registry accepts as it is.
    Bearer(String),
}

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct PullConfig {
    /// `host:port` of registries that speak plain HTTP. Loopback addresses and `localhost` do so always.
    pub plain_http: Vec<String>,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Bytes received.
    pub received: u64,
    /// Bytes to receive, of those layers that were not present.
    pub total: u64,
}

/// The images of a node. Cheap to clone; several processes may use one directory.
#[derive(Clone, Debug)]
pub struct ImageStore {
    root: Arc<PathBuf>,
}

impl ImageStore {
    /// Opens the store in `root`, which is made when absent.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self {
            root: Arc::new(root.into()),
        })
    }

    /// Loads a docker-archive, an OCI layout archive (either may be compressed) or an OCI layout directory and
    /// returns the references it brought. Blocks; call it from a blocking thread.
    pub fn load_archive(&self, path: &Path) -> Result<Vec<String>> {
        Err(Error::ImageNotFound(path.display().to_string()))
    }

    /// As [`load_archive`](Self::load_archive), from a stream.
    pub fn load_stream(&self, _stream: impl Read) -> Result<Vec<String>> {
        Err(Error::ImageNotFound(self.root.display().to_string()))
    }

    /// Pulls an image for this machine's architecture from its registry.
    pub async fn pull(
        &self,
        reference: &str,
        _credentials: Option<Credentials>,
        _config: &PullConfig,
        _progress: impl Fn(PullProgress) + Send + Sync + 'static,
    ) -> Result<Image> {
        Err(Error::ImageNotFound(reference.to_owned()))
    }

    /// Finds a present image by name (`busybox`, `localhost:5000/app:v1`, `name@sha256:…`) or by id (`sha256:…`).
    pub fn resolve(&self, reference: &str) -> Result<Option<Image>> {
        Err(Error::ImageNotFound(reference.to_owned()))
    }

    /// All images.
    pub fn list(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    /// Removes a reference, or by id all references of an image, and the layers that neither another image nor a
    /// container needs.
    pub fn remove(&self, reference: &str) -> Result<()> {
        Err(Error::ImageNotFound(reference.to_owned()))
    }

    /// Notes that a container uses layers, until [`release`](Self::release).
    pub(crate) fn hold(&self, holder: &str, layers: &[PathBuf]) -> Result<()> {
        let directory = self.root.join("uses");
        let path = directory.join(holder);
        let hold = || {
            std::fs::create_dir_all(&directory)?;
            std::fs::write(&path, serde_json::to_vec(layers)?)
        };
        hold().map_err(Error::io("write", &path))
    }

    /// A container is gone.
    pub(crate) fn release(&self, holder: &str) -> Result<()> {
        let path = self.root.join("uses").join(holder);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }
}
