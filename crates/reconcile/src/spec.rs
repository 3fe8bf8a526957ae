//! What a controller watches and how an event becomes a key.

use crate::cache::{Cache, Kind};
use crate::plan::{Action, Outcome, Plan};
use coracle_meta::GroupVersionResource;
use jiff::Timestamp;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// The object a reconciliation is about. The namespace is empty for cluster-scoped kinds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// Names an object.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of a typed object.
    pub fn of<K: Kind>(object: &K) -> Self {
        let meta = object.metadata();
        Self::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One change of a watched object, already in the cache. `old` is absent on create, `new` on delete.
#[derive(Clone)]
pub struct Change {
    /// The object before.
    pub old: Option<Arc<dyn Any + Send + Sync>>,
    /// The object after.
    pub new: Option<Arc<dyn Any + Send + Sync>>,
}

type Keys = Box<dyn Fn(&Change, &Cache) -> Vec<Key> + Send + Sync>;

/// A kind that a controller watches, and the keys that a change of it makes dirty.
pub struct Watch {
    /// What to watch.
    pub resource: GroupVersionResource,
    /// Registers the kind in a cache.
    pub register: fn(&mut Cache),
    /// The keys to reconcile after a change.
    pub keys: Keys,
}

impl Watch {
    /// Watches `K`; `keys` is asked for the old and the new object, and the results are joined.
    pub fn of<K: Kind>(keys: impl Fn(&K, &Cache) -> Vec<Key> + Send + Sync + 'static) -> Self {
        Self::changes(move |old: Option<&K>, new: Option<&K>, cache| {
            let mut all: Vec<Key> = old
                .into_iter()
                .chain(new)
                .flat_map(|object| keys(object, cache))
                .collect();
            all.sort();
            all.dedup();
            all
        })
    }

    /// Watches `K` where the difference of old and new matters.
    pub fn changes<K: Kind>(
        keys: impl Fn(Option<&K>, Option<&K>, &Cache) -> Vec<Key> + Send + Sync + 'static,
    ) -> Self {
        Self {
            resource: Cache::resource_of::<K>(),
            register: Cache::register::<K>,
            keys: Box::new(move |change, cache| {
                let old = change.old.as_ref().and_then(|o| o.downcast_ref::<K>());
                let new = change.new.as_ref().and_then(|o| o.downcast_ref::<K>());
                keys(old, new, cache)
            }),
        }
    }
}

/// A controller: what it watches and its pure functions.
pub struct Spec {
    /// Upstream's name, such as `replicaset`; requests are made as `system:serviceaccount:kube-system:NAME-controller`.
    pub name: &'static str,
    /// What it watches.
    pub watches: Vec<Watch>,
    /// Observes the key and plans. Called again with the same cache after a success it plans nothing.
    pub plan: fn(&Key, &Cache, Timestamp) -> Plan,
    /// After the plan's actions: the status write that reports the outcome, where the kind has one.
    pub status: Option<fn(&Key, &Cache, &Outcome, Timestamp) -> Option<Action>>,
}
