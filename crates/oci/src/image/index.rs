//! What the store knows about its images: one file, replaced as a whole, read anew when another process has replaced it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::ImageConfig;

/// Images by id (`sha256:…`).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) images: BTreeMap<String, Record>,
}

/// An image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// Names with tag.
    pub(super) references: Vec<String>,
    /// Names with digest.
    pub(super) digests: Vec<String>,
    pub(super) config: ImageConfig,
    /// Directory names of the layers, lowest first.
    pub(super) layers: Vec<String>,
    pub(super) size: u64,
}

impl Index {
    /// Adds an image. Its names are taken from those that had them.
    pub(super) fn add(&mut self, id: String, record: Record) {
        self.images.retain(|_, other| {
            let before = other.references.len();
            other
                .references
                .retain(|reference| !record.references.contains(reference));
            other.references.len() == before || !other.is_nameless()
        });
        let present = self.images.entry(id).or_default();
        let merge = |mut old: Vec<String>, new: Vec<String>| {
            old.extend(new);
            old.sort();
            old.dedup();
            old
        };
        *present = Record {
            references: merge(std::mem::take(&mut present.references), record.references),
            digests: merge(std::mem::take(&mut present.digests), record.digests),
            ..record
        };
    }

    /// Finds by id, name with tag or name with digest.
    pub(super) fn find(&self, name: &str) -> Option<(&String, &Record)> {
        self.images.get_key_value(name).or_else(|| {
            let named = |record: &Record| {
                record
                    .references
                    .iter()
                    .chain(&record.digests)
                    .any(|known| known == name)
            };
            self.images.iter().find(|(_, record)| named(record))
        })
    }

    /// Removes a name, or by id an image. False when there is none. An image goes with its last name; one that never had
    /// any can be removed by id only.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        if self.images.remove(name).is_some() {
            return true;
        }
        let Some(id) = self.find(name).map(|(id, _)| id.clone()) else {
            return false;
        };
        let Some(record) = self.images.get_mut(&id) else {
            return false;
        };
        let by_digest = record.digests.iter().any(|digest| digest == name);
        record.references.retain(|reference| reference != name);
        record.digests.retain(|digest| digest != name);
        if !by_digest {
            // The digest of a repository is known as long as the image has a tag there.
            let repository = |name: &str| name.rsplit_once(':').map_or(name, |(front, _)| front).to_owned();
            let tagged: Vec<String> = record.references.iter().map(|name| repository(name)).collect();
            let gone = repository(name);
            record.digests.retain(|digest| {
                let of = digest.split('@').next().unwrap_or_default();
                of != gone || tagged.iter().any(|known| known == of)
            });
        }
        if record.is_nameless() {
            self.images.remove(&id);
        }
        true
    }
}

impl Record {
    fn is_nameless(&self) -> bool {
        self.references.is_empty() && self.digests.is_empty()
    }
}

/// The index as it was read last.
#[derive(Debug, Default)]
pub(super) struct Cached(Mutex<Option<(Stamp, Arc<Index>)>>);

/// Tells one version of the file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
}

impl Cached {
    /// The present index; empty when there is no file yet.
    pub(super) fn read(&self, path: &Path) -> io::Result<Arc<Index>> {
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            result => result?,
        };
        let stamp = Stamp {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        };
        let mut cached = self.0.lock();
        if let Some((known, index)) = &*cached
            && *known == stamp
        {
            return Ok(index.clone());
        }
        let index: Arc<Index> = Arc::new(serde_json::from_slice(&fs::read(path)?)?);
        *cached = Some((stamp, index.clone()));
        Ok(index)
    }
}

/// Replaces the index, durably.
pub(super) fn write(path: &Path, index: &Index) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(index)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(references: &[&str], digests: &[&str]) -> Record {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Record {
            references: list(references),
            digests: list(digests),
            ..Record::default()
        }
    }

    #[test]
    fn a_name_belongs_to_one_image() {
        let mut index = Index::default();
        index.add("one".into(), record(&["a:1", "a:2"], &["a@x"]));
        index.add("two".into(), record(&["a:1"], &["a@y"]));
        assert_eq!(index.find("a:1").unwrap().0, "two");
        assert_eq!(index.find("a:2").unwrap().0, "one");
        assert_eq!(index.find("a@x").unwrap().0, "one");
        index.add("three".into(), record(&[], &[]));
        index.add("two".into(), record(&["b:1"], &[]));
        assert!(index.find("three").is_some());
        assert_eq!(index.images["two"].references, ["a:1", "b:1"]);
    }

    #[test]
    fn an_image_goes_with_its_last_name() {
        let mut index = Index::default();
        index.add("one".into(), record(&["h:5/a:1", "h:5/a:2"], &["h:5/a@x"]));
        assert!(index.remove("h:5/a:1"));
        assert!(index.find("h:5/a@x").is_some());
        assert!(index.remove("h:5/a:2"));
        assert!(index.images.is_empty());
        assert!(!index.remove("h:5/a:2"));
        index.add("one".into(), record(&["a:1", "b:1"], &["a@x", "b@x"]));
        assert!(index.remove("a:1"));
        assert_eq!(index.images["one"].digests, ["b@x"]);
        assert!(index.remove("one"));
        assert!(index.images.is_empty());
    }
}
