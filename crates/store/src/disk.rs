//! The durable copy: a redb file with one table of objects and one of counters.

use crate::OpenError;
use crate::object::{Index, Key, Object};
use redb::{Database, ReadableTable, TableDefinition};
use std::path::Path;
use std::sync::Arc;

/// `resource NUL namespace NUL name` to `revision (8 bytes) position of the revision (4 bytes) JSON`, little endian.
const OBJECTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");

/// No revision above this has been given out.
const REVISION: &str = "revision";
/// Lazy writes consume revisions without touching the disk, so the file always promises this many ahead.
const AHEAD: u64 = 10_000;
/// Everything is in memory anyway; redb only needs the pages of a transaction.
const CACHE_BYTES: usize = 4 << 20;
const HEADER: usize = 12;

pub(crate) struct Disk {
    database: Database,
    ceiling: u64,
}

pub(crate) type Loaded = Vec<(Arc<str>, Object)>;

impl Disk {
    pub fn open(path: &Path, index: impl Fn(&str, &[u8]) -> Index) -> Result<(Self, u64, Loaded), OpenError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(redb::Error::from)?;
        let mut disk = Self { database, ceiling: 0 };
        let (revision, objects) = disk.load(index)?;
        disk.ceiling = revision;
        Ok((disk, revision, objects))
    }

    fn load(&self, index: impl Fn(&str, &[u8]) -> Index) -> Result<(u64, Loaded), OpenError> {
        let transaction = self.database.begin_write().map_err(redb::Error::from)?;
        let mut loaded = Loaded::new();
        let revision = {
            let counters = transaction.open_table(COUNTERS).map_err(redb::Error::from)?;
            let objects = transaction.open_table(OBJECTS).map_err(redb::Error::from)?;
            let mut resource: Arc<str> = "".into();
            for entry in objects.iter().map_err(redb::Error::from)? {
                let (key, record) = entry.map_err(redb::Error::from)?;
                let damaged = || OpenError::Damaged(String::from_utf8_lossy(key.value()).into_owned());
                let (name, object) = decode(key.value(), record.value(), &index).ok_or_else(damaged)?;
                if *resource != *name {
                    resource = name.into();
                }
                loaded.push((resource.clone(), object));
            }
            let stored = counters.get(REVISION).map_err(redb::Error::from)?;
            stored.map_or(1, |guard| guard.value())
        };
        transaction.commit().map_err(redb::Error::from)?;
        Ok((revision, loaded))
    }

    /// Whether writes up to `revision` may stay in memory without the counter going back after a crash.
    pub fn covers(&self, revision: u64) -> bool {
        revision <= self.ceiling
    }

    /// Writes the objects (absent: deleted) and promises revisions beyond `revision`, durably.
    pub fn commit<'a>(
        &mut self,
        revision: u64,
        writes: impl Iterator<Item = (&'a Key, Option<&'a Object>)>,
    ) -> Result<(), OpenError> {
        self.write(revision + AHEAD, writes).map_err(OpenError::from)
    }

    /// The last commit: nothing will be given out beyond `revision`.
    pub fn finish<'a>(
        &mut self,
        revision: u64,
        writes: impl Iterator<Item = (&'a Key, Option<&'a Object>)>,
    ) -> Result<(), OpenError> {
        self.write(revision, writes).map_err(OpenError::from)
    }

    fn write<'a>(
        &mut self,
        ceiling: u64,
        writes: impl Iterator<Item = (&'a Key, Option<&'a Object>)>,
    ) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            let mut record = Vec::new();
            for (key, object) in writes {
                let path = encode_key(key);
                match object {
                    Some(object) => {
                        record.clear();
                        record.extend_from_slice(&object.revision().to_le_bytes());
                        record.extend_from_slice(&object.revision_at().to_le_bytes());
                        record.extend_from_slice(object.bytes());
                        objects.insert(path.as_slice(), record.as_slice())?;
                    }
                    None => {
                        objects.remove(path.as_slice())?;
                    }
                }
            }
            transaction.open_table(COUNTERS)?.insert(REVISION, ceiling)?;
        }
        transaction.commit()?;
        self.ceiling = ceiling;
        Ok(())
    }
}

fn encode_key(key: &Key) -> Vec<u8> {
    [
        key.resource.as_bytes(),
        key.namespace.as_bytes(),
        key.name.as_bytes(),
    ]
    .join(&0)
}

fn decode<'a>(
    key: &'a [u8],
    record: &[u8],
    index: impl Fn(&str, &[u8]) -> Index,
) -> Option<(&'a str, Object)> {
    let mut parts = std::str::from_utf8(key).ok()?.splitn(3, '\0');
    let (resource, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let revision = u64::from_le_bytes(record.get(..8)?.try_into().ok()?);
    let at = u32::from_le_bytes(record.get(8..HEADER)?.try_into().ok()?);
    let bytes = record.get(HEADER..)?;
    let digits = revision.to_string();
    if bytes.get(at as usize..at as usize + digits.len())? != digits.as_bytes() {
        return None;
    }
    let object = Object::from_record(
        namespace,
        name,
        revision,
        at,
        bytes.to_vec(),
        index(resource, bytes),
    );
    Some((resource, object))
}
