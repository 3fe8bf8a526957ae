//! What a controller watches and how an event becomes a key.

use crate::cache::{Cache, Kind};
use crate::plan::{Action, Outcome, Plan};
use coracle_meta::GroupVersionResource;
use jiff::Timestamp;
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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

/// Observes a key and plans. Asked again with the same cache after a success, it plans nothing.
pub type PlanFn = Box<dyn Fn(&Key, &Cache, Timestamp) -> Plan + Send + Sync>;

/// What follows the actions of a plan: events about what happened and the status write. Called after every plan,
/// also an empty one, with the cache as it was for the plan.
pub type AfterFn = Box<dyn Fn(&Key, &Cache, &Plan, &Outcome, Timestamp) -> Vec<Action> + Send + Sync>;

/// A controller: what it watches and its pure functions.
pub struct Spec {
    /// Upstream's service account, such as `replicaset-controller`: requests are made as
    /// `system:serviceaccount:kube-system:NAME`.
    pub name: &'static str,
    /// `source.component` of its Events; upstream does not always use the service account's name.
    pub event_source: &'static str,
    /// What it watches.
    pub watches: Vec<Watch>,
    /// A key is looked at when nothing has made it dirty for so long. Zero, for nearly all: at once.
    pub settle: Duration,
    /// Decides.
    pub plan: PlanFn,
    /// Reports.
    pub after: Option<AfterFn>,
}

impl Spec {
    /// A controller that watches nothing yet.
    pub fn new(
        name: &'static str,
        plan: impl Fn(&Key, &Cache, Timestamp) -> Plan + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            event_source: name,
            watches: Vec::new(),
            settle: Duration::ZERO,
            plan: Box::new(plan),
            after: None,
        }
    }

    /// Adds a watch.
    pub fn watch(mut self, watch: Watch) -> Self {
        self.watches.push(watch);
        self
    }

    /// Watches a kind that is only read: its changes make no key dirty.
    pub fn reads<K: Kind>(self) -> Self {
        self.watch(Watch::of(|_: &K, _| Vec::new()))
    }

    /// Sets what follows the actions.
    pub fn after(
        mut self,
        after: impl Fn(&Key, &Cache, &Plan, &Outcome, Timestamp) -> Vec<Action> + Send + Sync + 'static,
    ) -> Self {
        self.after = Some(Box::new(after));
        self
    }

    /// Sets the component that its Events name.
    pub fn event_source(mut self, component: &'static str) -> Self {
        self.event_source = component;
        self
    }

    /// Looks at a key only when nothing has made it dirty for so long: for what has no hurry and must not report on what
    /// is about to pass.
    pub fn settles_for(mut self, quiet: Duration) -> Self {
        self.settle = quiet;
        self
    }

    /// Makes room in a cache for everything it watches.
    pub fn register(&self, cache: &mut Cache) {
        for watch in &self.watches {
            (watch.register)(cache);
        }
    }
}
