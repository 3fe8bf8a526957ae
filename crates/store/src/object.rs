//! Objects: JSON bytes with the place of their revision, and what is selected by without parsing them.

use bytes::Bytes;
use std::sync::Arc;

/// Names an object: the resource is `group/plural` (`/pods`, `apps/replicasets`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// `group/plural`.
    pub resource: Arc<str>,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

impl Key {
    /// Names an object.
    pub fn new(resource: impl Into<Arc<str>>, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// What objects are selected by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.labels`.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// The selectable fields and their values.
    pub fields: Box<[(&'static str, Box<str>)]>,
}

/// An object that has no revision yet: the JSON before and after the digits of `resourceVersion`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Up to and including the quote that opens the revision.
    pub head: Vec<u8>,
    /// From the quote that closes the revision.
    pub tail: Vec<u8>,
    /// What it is selected by.
    pub index: Index,
}

/// A stored object. Immutable: a write makes a new one.
#[derive(Debug, PartialEq, Eq)]
pub struct Object {
    namespace: Box<str>,
    name: Box<str>,
    revision: u64,
    bytes: Bytes,
    /// Where the digits of the revision start.
    at: u32,
    index: Index,
}

impl Object {
    pub(crate) fn from_draft(key: &Key, draft: Draft, revision: u64) -> Self {
        let at = draft.head.len();
        let digits = revision.to_string();
        let mut bytes = draft.head;
        bytes.reserve_exact(digits.len() + draft.tail.len());
        bytes.extend_from_slice(digits.as_bytes());
        bytes.extend_from_slice(&draft.tail);
        bytes.shrink_to_fit();
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            revision,
            bytes: bytes.into(),
            at: u32::try_from(at).expect("request bodies are far below 4 GiB"),
            index: draft.index,
        }
    }

    pub(crate) fn from_record(
        namespace: &str,
        name: &str,
        revision: u64,
        at: u32,
        bytes: Vec<u8>,
        index: Index,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            revision,
            bytes: bytes.into(),
            at,
            index,
        }
    }

    /// The same object at another revision: what a watcher gets when it goes away.
    pub fn at_revision(&self, revision: u64) -> Self {
        let start = self.at as usize;
        let digits = revision.to_string();
        let mut bytes = Vec::with_capacity(self.bytes.len() + digits.len());
        bytes.extend_from_slice(&self.bytes[..start]);
        bytes.extend_from_slice(digits.as_bytes());
        bytes.extend_from_slice(&self.bytes[self.tail_at()..]);
        Self {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            revision,
            bytes: bytes.into(),
            at: self.at,
            index: self.index.clone(),
        }
    }

    fn tail_at(&self) -> usize {
        // The digits in the bytes are those of `revision`: both are written together.
        self.at as usize + self.revision.checked_ilog10().map_or(1, |n| n as usize + 1)
    }

    /// Namespace; empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
    /// Name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The revision of its last write.
    pub fn revision(&self) -> u64 {
        self.revision
    }
    /// Compact JSON, `resourceVersion` included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// What it is selected by.
    pub fn index(&self) -> &Index {
        &self.index
    }
    pub(crate) fn revision_at(&self) -> u32 {
        self.at
    }

    /// Whether a draft says what is stored already: such a write is not made.
    pub fn has_content(&self, draft: &Draft) -> bool {
        self.bytes[..self.at as usize] == draft.head && self.bytes[self.tail_at()..] == draft.tail
    }
}
