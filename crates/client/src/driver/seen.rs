//! What a plan wrote and the cache has yet to show.

use coracle_meta::GroupVersionResource;
use coracle_meta::object::ObjectExt;
use coracle_reconcile::{Action, Cache, Key, Outcome, Plan, Revision};

/// Writes that the cache has yet to show.
#[derive(Debug, Default)]
pub(super) struct Unseen(Vec<Condition>);

#[derive(Debug)]
enum Condition {
    /// Changes of the resource up to the revision are in.
    Reached(GroupVersionResource, Revision),
    /// The object is gone, on its way out, or another one. An answer to a delete does not say at which revision.
    Deleted(GroupVersionResource, Key, String),
}

impl Unseen {
    /// What the successful actions of a plan wrote.
    pub(super) fn after(plan: &Plan, outcome: &Outcome) -> Self {
        let written = plan.actions().zip(&outcome.results);
        let conditions = written.filter_map(|(action, result)| {
            let object = result.as_ref().ok()?;
            match action {
                Action::Create { resource, .. }
                | Action::Update { resource, .. }
                | Action::Patch { resource, .. } => {
                    let revision = Revision::parse(object.resource_version());
                    Some(Condition::Reached(resource.clone(), revision))
                }
                Action::Delete {
                    resource,
                    key,
                    precondition,
                    ..
                } => {
                    // Without a uid a successor of the same name would be waited for.
                    let uid = precondition.uid.clone()?;
                    Some(Condition::Deleted(resource.clone(), key.clone(), uid))
                }
                // The answer is about the verb and not about the object.
                Action::CreateSubresource { .. } | Action::Event { .. } => None,
            }
        });
        Self(conditions.collect())
    }

    pub(super) fn and(mut self, mut other: Self) -> Self {
        self.0.append(&mut other.0);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets what the cache shows by now; true when nothing is left.
    pub(super) fn is_seen(&mut self, cache: &Cache) -> bool {
        self.0.retain(|condition| !condition.holds(cache));
        self.0.is_empty()
    }
}

impl Condition {
    /// Resources that nobody watches are never seen, and nobody plans by them.
    fn holds(&self, cache: &Cache) -> bool {
        match self {
            Self::Reached(resource, revision) => {
                let store = cache.erased(resource);
                store.is_none_or(|store| store.revision() >= *revision)
            }
            Self::Deleted(resource, key, uid) => {
                let metadata = cache.erased(resource).and_then(|store| store.metadata(key));
                metadata.is_none_or(|metadata| {
                    metadata.deletion_timestamp.is_some() || metadata.uid.as_ref() != Some(uid)
                })
            }
        }
    }
}
