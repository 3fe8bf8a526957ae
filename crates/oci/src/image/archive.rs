//! Images in files: docker-archives, OCI layouts in an archive or a directory. Upstream counterpart: containerd's
//! `core/images/archive`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::layer::decompressed;
use super::reference;
use super::tar::{Kind, Reader};
use crate::{Error, Result};

/// Manifests, indexes and configurations are small.
const MAX_DOCUMENT: u64 = 8 << 20;
/// How deep indexes may nest.
const MAX_NESTING: u32 = 4;

/// An image found in a file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) names: Vec<String>,
    /// Digest of its manifest, where it has one.
    pub(super) digest: Option<String>,
    pub(super) config: Vec<u8>,
    /// File in the archive and, where it is known, digest of each layer, lowest first.
    pub(super) layers: Vec<(String, Option<String>)>,
}

/// Where the files of an image are.
#[derive(Debug)]
pub(super) enum Source {
    Directory(PathBuf),
    Archive {
        file: Arc<File>,
        members: HashMap<String, Member>,
    },
}

#[derive(Debug)]
pub(super) enum Member {
    Contents {
        offset: u64,
        size: u64,
    },
    /// `docker save` of old links layers that are the same.
    Link(String),
}

/// A part of a file.
#[derive(Debug)]
pub(super) struct Section {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl Source {
    /// Opens a file or directory. A compressed archive is decompressed into `scratch` first.
    pub(super) fn open(path: &Path, scratch: &Path) -> Result<Self> {
        let failed = || Error::io("open", path);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let file = File::open(path).map_err(failed())?;
        let mut magic = [0; 4];
        let count = file.read_at(&mut magic, 0).map_err(failed())?;
        if magic[..count].starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] {
            return Self::spool(file, scratch);
        }
        Self::index(file)
    }

    /// Reads a stream, which need not be a file, into `scratch`.
    pub(super) fn spool(stream: impl Read, scratch: &Path) -> Result<Self> {
        let mut spooled = tempfile::tempfile_in(scratch).map_err(Error::io("make file in", scratch))?;
        let copy = || io::copy(&mut decompressed(stream)?, &mut spooled);
        copy().map_err(|error| Error::InvalidImage(format!("archive: {error}")))?;
        Self::index(spooled)
    }

    fn index(file: File) -> Result<Self> {
        let file = Arc::new(file);
        let left = file
            .metadata()
            .map(|metadata| metadata.len())
            .map_err(Error::io("read", "archive"))?;
        let read = || -> io::Result<HashMap<String, Member>> {
            let mut members = HashMap::new();
            let mut offset = 0;
            // From header to header: contents are skipped, not read.
            loop {
                let section = Section {
                    file: file.clone(),
                    offset,
                    left: left.saturating_sub(offset),
                };
                let mut reader = Reader::new(section);
                let Some(entry) = reader.next()? else {
                    return Ok(members);
                };
                let contents = offset + reader.consumed();
                let next = entry
                    .size
                    .checked_next_multiple_of(512)
                    .and_then(|size| contents.checked_add(size));
                offset = next
                    .filter(|next| *next <= left)
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                let as_path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
                let (path, link) = (as_path(&entry.path), as_path(&entry.link));
                let Some(name) = member_name(&path) else { continue };
                let member = match entry.kind {
                    Kind::File => Some(Member::Contents {
                        offset: contents,
                        size: entry.size,
                    }),
                    Kind::HardLink => member_name(&link).map(Member::Link),
                    Kind::Symlink => {
                        member_name(&path.parent().unwrap_or(Path::new("")).join(link)).map(Member::Link)
                    }
                    _ => None,
                };
                members.extend(member.map(|member| (name, member)));
            }
        };
        let members = read().map_err(|error| Error::InvalidImage(format!("not a tar archive: {error}")))?;
        Ok(Self::Archive { file, members })
    }

    /// Opens a member.
    pub(super) fn member(&self, name: &str) -> Result<Box<dyn Read + Send>> {
        let absent = || Error::InvalidImage(format!("the archive has no {name:?}"));
        let plain = member_name(Path::new(name)).ok_or_else(absent)?;
        match self {
            Self::Directory(directory) => {
                let path = directory.join(plain);
                let file = File::open(&path).map_err(Error::io("open", path))?;
                Ok(Box::new(file))
            }
            Self::Archive { file, members } => {
                let mut member = members.get(&plain).ok_or_else(absent)?;
                for _ in 0..MAX_NESTING {
                    match member {
                        Member::Contents { offset, size } => {
                            return Ok(Box::new(Section {
                                file: file.clone(),
                                offset: *offset,
                                left: *size,
                            }));
                        }
                        Member::Link(target) => member = members.get(target).ok_or_else(absent)?,
                    }
                }
                Err(absent())
            }
        }
    }

    /// Bytes of a member.
    pub(super) fn size(&self, name: &str) -> Result<u64> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(name);
                path.metadata()
                    .map(|metadata| metadata.len())
                    .map_err(Error::io("read", path))
            }
            Self::Archive { members, .. } => match members.get(name) {
                Some(Member::Contents { size, .. }) => Ok(*size),
                // Counted where it is linked to.
                Some(Member::Link(_)) | None => Ok(0),
            },
        }
    }

    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let mut contents = Vec::new();
        self.member(name)?
            .take(MAX_DOCUMENT)
            .read_to_end(&mut contents)
            .map_err(|error| Error::InvalidImage(format!("{name}: {error}")))?;
        Ok(contents)
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(directory) => directory.join(name).is_file(),
            Self::Archive { members, .. } => members.contains_key(name),
        }
    }

    /// The images in it. A docker-archive tells full names, so its manifest is preferred where there are both.
    pub(super) fn images(&self) -> Result<Vec<Found>> {
        if self.has("manifest.json") {
            self.docker_images()
        } else if self.has("index.json") {
            let mut found = Vec::new();
            let index: Index = parse("index.json", &self.document("index.json")?)?;
            for descriptor in &index.manifests {
                self.oci_images(descriptor, &descriptor.names(), MAX_NESTING, &mut found)?;
            }
            Ok(found)
        } else {
            Err(Error::InvalidImage(
                "neither manifest.json nor index.json found".to_owned(),
            ))
        }
    }

    fn docker_images(&self) -> Result<Vec<Found>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Manifest {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let manifests: Vec<Manifest> = parse("manifest.json", &self.document("manifest.json")?)?;
        let image = |manifest: Manifest| {
            Ok(Found {
                names: manifest.repo_tags.unwrap_or_default(),
                digest: None,
                config: self.document(&manifest.config)?,
                layers: manifest.layers.into_iter().map(|layer| (layer, None)).collect(),
            })
        };
        manifests.into_iter().map(image).collect()
    }

    /// Follows a descriptor: to an image, or through an index to the one for this machine.
    fn oci_images(
        &self,
        descriptor: &Descriptor,
        names: &[String],
        nesting: u32,
        found: &mut Vec<Found>,
    ) -> Result<()> {
        let Some(nesting) = nesting.checked_sub(1) else {
            return Err(Error::InvalidImage("indexes are nested too deeply".to_owned()));
        };
        if !descriptor.is_for_this_machine() {
            return Ok(());
        }
        let blob = blob_name(&descriptor.digest)?;
        let document = self.document(&blob)?;
        let actual = super::layer::digest(&document);
        if actual != descriptor.digest {
            return Err(Error::InvalidImage(format!(
                "blob {} has the digest {actual}",
                descriptor.digest
            )));
        }
        let manifest: Manifest = parse(&blob, &document)?;
        if let Some(manifests) = &manifest.manifests {
            for descriptor in manifests {
                self.oci_images(descriptor, names, nesting, found)?;
            }
            return Ok(());
        }
        let Some(config) = manifest.config else {
            return Err(Error::InvalidImage(format!("{blob} has no config")));
        };
        let config_document = self.document(&blob_name(&config.digest)?)?;
        let layers = manifest
            .layers
            .iter()
            .map(|layer| Ok((blob_name(&layer.digest)?, Some(layer.digest.clone()))));
        found.push(Found {
            names: names.to_vec(),
            digest: Some(descriptor.digest.clone()),
            config: config_document,
            layers: layers.collect::<Result<_>>()?,
        });
        Ok(())
    }
}

fn blob_name(digest: &str) -> Result<String> {
    Ok(format!("blobs/sha256/{}", reference::sha256_digits(digest)?))
}

/// A member's path without `.` and `..`; none when it leads out of the archive.
fn member_name(path: &Path) -> Option<String> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    normal.into_os_string().into_string().ok()
}

fn parse<T: DeserializeOwned>(name: &str, document: &[u8]) -> Result<T> {
    serde_json::from_slice(document).map_err(|error| Error::InvalidImage(format!("{name}: {error}")))
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// A manifest, or an index where a manifest was looked for.
#[derive(Deserialize)]
struct Manifest {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Descriptor {
    fn names(&self) -> Vec<String> {
        // The first is a full name; the second often is only a tag, which names nothing.
        let full = self.annotations.get("io.containerd.image.name");
        let named = |name: &&String| name.contains(['/', ':']);
        let short = self
            .annotations
            .get("org.opencontainers.image.ref.name")
            .filter(named);
        full.or(short).cloned().into_iter().collect()
    }

    fn is_for_this_machine(&self) -> bool {
        self.platform
            .as_ref()
            .is_none_or(|platform| platform.os == "linux" && platform.architecture == super::architecture())
    }
}
