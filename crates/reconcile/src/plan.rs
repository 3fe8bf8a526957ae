//! What a controller decided: data, executed by the driver.

use crate::cache::{Cache, Kind};
use crate::spec::Key;
use coracle_meta::{GroupVersionResource, Status};
use serde_json::Value;
use std::time::Duration;

/// The actions that bring an object nearer to its spec. Empty when nothing is to do.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Plan {
    /// Executed in order; the actions of one step run concurrently, and a step that fails ends the plan.
    pub steps: Vec<Vec<Action>>,
    /// Look again after this time even if nothing changes.
    pub requeue_after: Option<Duration>,
    /// Why: lines for `describe`, `trace` and logs.
    pub report: Vec<String>,
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Self::default()
    }
    /// Whether there is nothing to do and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        !self.has_actions() && self.requeue_after.is_none()
    }
    /// Whether there is anything to execute.
    pub fn has_actions(&self) -> bool {
        self.actions().next().is_some()
    }
    /// All actions in the order of [`Outcome::results`].
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.steps.iter().flatten()
    }
    /// Adds an action to the last step.
    pub fn push(&mut self, action: Action) {
        match self.steps.last_mut() {
            Some(step) => step.push(action),
            None => self.steps.push(vec![action]),
        }
    }
    /// Adds an action as a step of its own: it runs when everything before it has succeeded.
    pub fn then(&mut self, action: Action) {
        self.steps.push(vec![action]);
    }
    /// Adds actions in steps of 1, 2, 4, …, so that a server that refuses them all is asked only once.
    /// Upstream: `slowStartBatch` in pkg/controller/replicaset.
    pub fn slow_start(&mut self, actions: impl IntoIterator<Item = Action>) {
        let mut actions = actions.into_iter().peekable();
        let mut size = 1;
        while actions.peek().is_some() {
            self.steps.push(actions.by_ref().take(size).collect());
            size *= 2;
        }
    }
    /// Notes why: a line for `describe`, `trace` and logs.
    pub fn note(&mut self, line: impl Into<String>) {
        self.report.push(line.into());
    }
    /// Looks again no later than after `delay`.
    pub fn requeue(&mut self, delay: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(delay, |d| d.min(delay)));
    }
}

/// What must still hold when a write is executed; otherwise the server answers 409 and the key is planned anew.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Precondition {
    /// The object's uid.
    pub uid: Option<String>,
    /// The object's resource version.
    pub resource_version: Option<String>,
}

/// How dependents of a deleted object go. Upstream: `metav1.DeletionPropagation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes at once, the garbage collector takes its dependents.
    Background,
    /// Dependents first.
    Foreground,
    /// Dependents stay and lose the reference.
    Orphan,
}

/// The type of a patch body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge.
    Strategic,
}

/// The class of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// Information.
    Normal,
    /// Something needs attention.
    Warning,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// POST of `object`.
    Create {
        /// Where.
        resource: GroupVersionResource,
        /// The namespace, or empty.
        namespace: String,
        /// The whole object, with `apiVersion` and `kind`.
        object: Value,
    },
    /// POST of `object` to a subresource that is a verb: `binding`, `eviction`.
    CreateSubresource {
        /// Where.
        resource: GroupVersionResource,
        /// Which.
        key: Key,
        /// The verb.
        subresource: &'static str,
        /// The whole object.
        object: Value,
    },
    /// PUT of `object`, whose `resourceVersion` is the precondition; `subresource` such as `status`.
    Update {
        /// Where.
        resource: GroupVersionResource,
        /// Which.
        key: Key,
        /// Empty for the object itself.
        subresource: &'static str,
        /// The whole object.
        object: Value,
    },
    /// PATCH.
    Patch {
        /// Where.
        resource: GroupVersionResource,
        /// Which.
        key: Key,
        /// Empty for the object itself.
        subresource: &'static str,
        /// The type of `body`.
        patch_type: PatchType,
        /// The patch.
        body: Value,
    },
    /// DELETE.
    Delete {
        /// Where.
        resource: GroupVersionResource,
        /// Which.
        key: Key,
        /// What must hold.
        precondition: Precondition,
        /// How dependents go; the kind's default if absent.
        propagation: Option<Propagation>,
        /// Grace period in seconds; the object's own if absent.
        grace_seconds: Option<i64>,
    },
    /// An Event about an object; the driver aggregates repeats.
    Event {
        /// `involvedObject`: apiVersion, kind, namespace, name, uid.
        regarding: Value,
        /// Its class.
        event_type: EventType,
        /// CamelCase reason, such as `SuccessfulCreate`.
        reason: String,
        /// For people.
        message: String,
    },
}

impl Action {
    /// POST of a typed object.
    pub fn create<K: Kind>(object: &K) -> Self {
        Self::Create {
            resource: Cache::resource_of::<K>(),
            namespace: object.metadata().namespace.clone().unwrap_or_default(),
            object: to_value(object),
        }
    }
    /// PUT of a typed object.
    pub fn update<K: Kind>(object: &K) -> Self {
        Self::update_subresource(object, "")
    }
    /// PUT of a typed object's status.
    pub fn update_status<K: Kind>(object: &K) -> Self {
        Self::update_subresource(object, "status")
    }
    fn update_subresource<K: Kind>(object: &K, subresource: &'static str) -> Self {
        Self::Update {
            resource: Cache::resource_of::<K>(),
            key: Key::of(object),
            subresource,
            object: to_value(object),
        }
    }
    /// PATCH of a typed object.
    pub fn patch<K: Kind>(object: &K, patch_type: PatchType, body: Value) -> Self {
        Self::Patch {
            resource: Cache::resource_of::<K>(),
            key: Key::of(object),
            subresource: "",
            patch_type,
            body,
        }
    }
    /// DELETE of exactly this object (its uid is the precondition).
    pub fn delete<K: Kind>(object: &K) -> Self {
        Self::Delete {
            resource: Cache::resource_of::<K>(),
            key: Key::of(object),
            precondition: Precondition {
                uid: object.metadata().uid.clone(),
                resource_version: None,
            },
            propagation: None,
            grace_seconds: None,
        }
    }
    /// An Event about a typed object.
    pub fn event<K: Kind>(
        object: &K,
        event_type: EventType,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let meta = object.metadata();
        Self::Event {
            regarding: serde_json::json!({
                "apiVersion": K::API_VERSION,
                "kind": K::KIND,
                "namespace": meta.namespace,
                "name": meta.name,
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
            }),
            event_type,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// A typed API object always serialises: its maps have string keys.
fn to_value<K: Kind>(object: &K) -> Value {
    serde_json::to_value(object).expect("API objects have string keys only")
}

/// What became of a plan: one result an action, in order. The actions of a step are absent when an earlier step
/// failed.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// The written object (Null for events and deletes), or the server's refusal.
    pub results: Vec<Result<Value, Status>>,
}

impl Outcome {
    /// The first failure.
    pub fn error(&self) -> Option<&Status> {
        self.results.iter().find_map(|r| r.as_ref().err())
    }
}
