//! The image store: archives and registries in, unpacked layers out. Upstream counterpart: the image service of
//! `staging/src/k8s.io/cri-api`, as containerd implements it.
//!
//! ```text
//! ROOT/index.json     names, configurations and layers of the images
//!      layers/CHAIN/  an unpacked layer, shared by all images that begin with the same layers
//!      uses/HOLDER    the layers a container uses
//!      scratch/       work in progress
//!      lock           held shared by those who add or use layers, alone by who removes them
//!      index.lock     held by who replaces the index
//! ```
//!
//! Several processes may use a store: a command line tool loads images while a daemon runs.

mod archive;
mod index;
mod layer;
mod pull;
mod reference;
mod tar;
#[cfg(test)]
mod tests;
mod unpack;
mod uses;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use archive::{Found, Source};
use index::{Index, Record};

pub(crate) use uses::Uses;

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
    cached: Arc<index::Cached>,
}

impl ImageStore {
    /// Opens the store in `root`, which is made when absent.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root: PathBuf = root.into();
        let root = std::path::absolute(&root).map_err(Error::io("resolve", root))?;
        // Nobody but root: set-user-ID programs of images are not for the users of the node.
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        for directory in [
            root.clone(),
            root.join("layers"),
            root.join("uses"),
            root.join("scratch"),
        ] {
            make(&directory).map_err(Error::io("make", &directory))?;
        }
        let store = Self {
            root: Arc::new(root),
            cached: Arc::default(),
        };
        store.collect_garbage()?;
        Ok(store)
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Loads a docker-archive, an OCI layout archive (either may be compressed) or an OCI layout directory and
    /// returns the references it brought; of an image without a name the id. Blocks; call it from a blocking thread.
    pub fn load_archive(&self, path: &Path) -> Result<Vec<String>> {
        let lock = self.lock_shared()?;
        let source = Source::open(path, &self.scratch())?;
        self.load(&source, lock)
    }

    /// As [`load_archive`](Self::load_archive), from a stream.
    pub fn load_stream(&self, stream: impl Read) -> Result<Vec<String>> {
        let lock = self.lock_shared()?;
        let source = Source::spool(stream, &self.scratch())?;
        self.load(&source, lock)
    }

    fn load(&self, source: &Source, lock: File) -> Result<Vec<String>> {
        let mut loaded = Vec::new();
        let mut brought = Vec::new();
        for found in source.images()? {
            let (id, record) = self.add(source, &found)?;
            brought.extend(if record.references.is_empty() {
                vec![id.clone()]
            } else {
                record.references.clone()
            });
            loaded.push((id, record));
        }
        if loaded.is_empty() {
            return Err(Error::InvalidImage(format!(
                "no image for linux/{} found",
                architecture()
            )));
        }
        self.commit(loaded)?;
        drop(lock);
        self.collect_garbage()?;
        Ok(brought)
    }

    fn add(&self, source: &Source, found: &Found) -> Result<(String, Record)> {
        let document = Document::parse(&found.config)?;
        if document.diff_ids.len() != found.layers.len() {
            return Err(Error::InvalidImage(
                "manifest and config differ in the number of layers".to_owned(),
            ));
        }
        let id = layer::digest(&found.config);
        let chain = layer::chain(&document.diff_ids)?;
        let mut size = 0;
        for (index, (member, digest)) in found.layers.iter().enumerate() {
            if !self.layer(&chain[index]).is_dir() {
                let stream = source.member(member)?;
                self.install(
                    stream,
                    (digest.as_deref(), &document.diff_ids[index]),
                    &chain[..=index],
                )?;
            }
            size += source.size(member)?;
        }
        let mut references = Vec::new();
        let mut digests = Vec::new();
        for name in &found.names {
            let reference = reference::parse(name)?;
            if let Some(digest) = &found.digest {
                digests.push(format!("{}@{digest}", reference::repository(&reference)));
            }
            references.push(reference::canonical(&reference));
        }
        Ok((
            id,
            Record {
                references,
                digests,
                config: document.config,
                layers: chain,
                size,
            },
        ))
    }

    /// Unpacks the last layer of `chain`.
    fn install(&self, stream: impl Read, expected: (Option<&str>, &str), chain: &[String]) -> Result<()> {
        let Some((name, below)) = chain.split_last() else {
            return Ok(());
        };
        let below: Vec<PathBuf> = below.iter().map(|name| self.layer(name)).collect();
        layer::install(stream, expected, &below, &self.scratch(), &self.layer(name))
    }

    /// Finds a present image by name (`busybox`, `localhost:5000/app:v1`, `name@sha256:…`) or by id (`sha256:…`).
    pub fn resolve(&self, name: &str) -> Result<Option<Image>> {
        let index = self.index()?;
        let found = match index.find(name) {
            Some(found) => Some(found),
            None if name.starts_with("sha256:") => None,
            None => index.find(&reference::canonical(&reference::parse(name)?)),
        };
        Ok(found.map(|(id, record)| self.image(id, record)))
    }

    /// All images.
    pub fn list(&self) -> Result<Vec<Image>> {
        Ok(self
            .index()?
            .images
            .iter()
            .map(|(id, record)| self.image(id, record))
            .collect())
    }

    /// Removes a reference, or by id all references of an image, and the layers that neither another image nor a
    /// container needs.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.change(|index| {
            let canonical = || reference::parse(name).map(|reference| reference::canonical(&reference));
            if index.remove(name) || (!name.starts_with("sha256:") && index.remove(&canonical()?)) {
                Ok(())
            } else {
                Err(Error::ImageNotFound(name.to_owned()))
            }
        })?;
        self.collect_garbage()
    }

    fn image(&self, id: &str, record: &Record) -> Image {
        Image {
            id: id.to_owned(),
            references: record.references.clone(),
            digests: record.digests.clone(),
            config: record.config.clone(),
            layers: record.layers.iter().map(|name| self.layer(name)).collect(),
            size: record.size,
        }
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.root.join("layers").join(name)
    }

    fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    fn index(&self) -> Result<Arc<Index>> {
        let path = self.root.join("index.json");
        self.cached.read(&path).map_err(Error::io("read", path))
    }

    /// Makes images known whose layers are in place.
    fn commit(&self, images: Vec<(String, Record)>) -> Result<()> {
        // Once for all layers, and before the index speaks of them: a crash must not leave an image with holes.
        let layers = self.root.join("layers");
        let sync = || rustix::fs::syncfs(File::open(&layers)?).map_err(io::Error::from);
        sync().map_err(Error::io("flush", &layers))?;
        self.change(|index| {
            images.into_iter().for_each(|(id, record)| index.add(id, record));
            Ok(())
        })
    }

    fn change(&self, change: impl FnOnce(&mut Index) -> Result<()>) -> Result<()> {
        let _lock = lock(&self.root.join("index.lock"), FlockOperation::LockExclusive)?;
        let mut index = Index::clone(&*self.index()?);
        change(&mut index)?;
        let path = self.root.join("index.json");
        index::write(&path, &index).map_err(Error::io("write", path))
    }

    /// Keeps layers from being removed until the file is dropped.
    fn lock_shared(&self) -> Result<File> {
        lock(&self.root.join("lock"), FlockOperation::LockShared)
    }

    /// Removes layers that nobody needs. When layers are being added or taken into use it is left to those who do.
    fn collect_garbage(&self) -> Result<()> {
        let path = self.root.join("lock");
        let lock = match lock(&path, FlockOperation::NonBlockingLockExclusive) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            result => result?,
        };
        let mut needed: BTreeSet<PathBuf> = BTreeSet::new();
        for record in self.index()?.images.values() {
            needed.extend(record.layers.iter().map(|name| self.layer(name)));
        }
        for path in entries(&self.root.join("uses"))? {
            let used = fs::read(&path).map_err(Error::io("read", &path))?;
            // A holder that crashed while it wrote this has started nothing.
            needed.extend(serde_json::from_slice::<Vec<PathBuf>>(&used).unwrap_or_default());
        }
        let scratch = self.scratch();
        for path in entries(&self.root.join("layers"))? {
            if !needed.contains(&path) {
                // A layer is there as a whole or not at all, so it leaves its place before it is taken apart.
                let name = path.file_name().unwrap_or_default();
                fs::rename(&path, scratch.join(name)).map_err(Error::io("remove", &path))?;
            }
        }
        for path in entries(&scratch)? {
            coracle_kernel::root::remove_path(&path).map_err(Error::io("remove", path))?;
        }
        drop(lock);
        Ok(())
    }
}

fn lock(path: &Path, operation: FlockOperation) -> Result<File> {
    let open = || {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation))?;
        Ok::<_, io::Error>(file)
    };
    open().map_err(Error::io("lock", path))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = || {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<_>>()
    };
    list().map_err(Error::io("list", directory))
}

/// This machine's architecture as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The image configuration, as far as it matters.
struct Document {
    config: ImageConfig,
    diff_ids: Vec<String>,
}

impl Document {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let parsed: oci_spec::image::ImageConfiguration = serde_json::from_slice(bytes)
            .map_err(|error| Error::InvalidImage(format!("image configuration: {error}")))?;
        let config = parsed.config().clone().unwrap_or_default();
        let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        Ok(Self {
            config: ImageConfig {
                entrypoint: list(config.entrypoint()),
                cmd: list(config.cmd()),
                env: list(config.env()),
                user: config.user().clone().unwrap_or_default(),
                working_dir: config.working_dir().clone().unwrap_or_default(),
                exposed_ports: list(config.exposed_ports()),
                volumes: list(config.volumes()),
                stop_signal: config.stop_signal().clone(),
            },
            diff_ids: parsed.rootfs().diff_ids().clone(),
        })
    }
}
