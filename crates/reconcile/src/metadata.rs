//! Controllers that work on objects of every kind, of which they know the metadata only: the garbage collector and
//! the namespace controller. Upstream: `k8s.io/client-go/metadata`.

use crate::plan::Action;
use crate::spec::Key;
use coracle_meta::{GroupVersionResource, Status};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A resource that is served and watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Where.
    pub resource: GroupVersionResource,
    /// Kind of its objects.
    pub kind: String,
    /// Whether they live in namespaces.
    pub namespaced: bool,
}

/// What all objects have in common.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Namespace, or empty.
    #[serde(deserialize_with = "null_is_default")]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Identity.
    pub uid: String,
    /// Revision of the last change.
    pub resource_version: String,
    /// When its deletion was asked for.
    pub deletion_timestamp: Option<String>,
    /// What must happen before it goes.
    #[serde(deserialize_with = "null_is_default")]
    pub finalizers: Vec<String>,
    /// Whom it belongs to.
    #[serde(deserialize_with = "null_is_default")]
    pub owner_references: Vec<OwnerReference>,
}

/// An owner of an object.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Identity.
    pub uid: String,
    /// Whether the owner is its controller.
    pub controller: Option<bool>,
    /// Whether a deletion of the owner in the foreground waits for it.
    pub block_owner_deletion: Option<bool>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Metadata {
    /// The metadata in the JSON of an object; the rest is skipped.
    pub fn parse(object: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        serde_json::from_slice::<Object>(object).map(|object| object.metadata)
    }

    /// Namespace and name.
    pub fn key(&self) -> Key {
        Key::new(self.namespace.clone(), self.name.clone())
    }

    /// Whether its deletion was asked for.
    pub fn is_terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// Whether it has this finalizer.
    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|f| f == name)
    }
}

/// What a watch says about an object.
#[derive(Debug, Clone, Copy)]
pub enum MetadataChange<'a> {
    /// It is like this now.
    Applied(&'a Metadata),
    /// It is gone.
    Deleted(&'a Key),
}

/// What a metadata machine wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// A write; the answer is the written object.
    Write(Action),
    /// The object as it is now, not as the watches have shown it.
    Get {
        /// Where.
        resource: GroupVersionResource,
        /// Which.
        key: Key,
    },
    /// The objects of a namespace as they are now; the answer is the list.
    List {
        /// Where.
        resource: GroupVersionResource,
        /// Where.
        namespace: String,
    },
}

/// A pure state machine over the metadata of all objects.
pub trait MetadataMachine: Send {
    /// The name it acts under, such as `generic-garbage-collector`.
    fn name(&self) -> &'static str;
    /// Takes in a change.
    fn observe(&mut self, resource: &GroupVersionResource, change: MetadataChange<'_>, now: Timestamp);
    /// Decides everything that can be decided now. Requests are executed concurrently, each under its ticket.
    fn step(&mut self, now: Timestamp) -> Vec<(u64, Request)>;
    /// Learns what became of a request.
    fn answered(&mut self, ticket: u64, answer: &Result<Value, Status>, now: Timestamp);
    /// When to ask again even if nothing changes.
    fn wake_at(&self) -> Option<Timestamp>;
}
