//! The versions of a pod template that a workload has had, kept in ControllerRevisions.
//! Upstream: `pkg/controller/history`, `pkg/controller/daemon/update.go`.

use crate::controller_ref;
use crate::pod_template_hash::hash;
use coracle_reconcile::{Action, Kind};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use std::sync::Arc;

/// On pods: the version that they were made of.
pub(crate) const REVISION_HASH: &str = "controller-revision-hash";

/// The revisions of a workload.
pub(crate) struct History<'a> {
    /// That of its template as it is now.
    pub current: ControllerRevision,
    /// Whether that is stored as it is here.
    pub current_is_stored: bool,
    /// Whether that exists at all.
    pub current_exists: bool,
    /// The others, the oldest first.
    pub old: Vec<&'a Arc<ControllerRevision>>,
    /// More of the current one.
    pub duplicates: Vec<&'a Arc<ControllerRevision>>,
}

/// What is kept of a template: a patch that puts it back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("API objects have string keys only");
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// Sorts out the revisions of a workload. `labels` are those of a new one beside the hash; `collisions` makes another
/// name.
pub(crate) fn history<'a, O: Kind>(
    owner: &O,
    template: &PodTemplateSpec,
    owned: &[&'a Arc<ControllerRevision>],
    collisions: Option<i32>,
) -> History<'a> {
    let wanted = data(template);
    let mut revisions: Vec<&'a Arc<ControllerRevision>> = owned.to_vec();
    revisions.sort_by_key(|revision| (revision.revision, revision.metadata.name.clone()));
    let (mut same, old): (Vec<_>, Vec<_>) = revisions
        .into_iter()
        .partition(|revision| revision.data.as_ref().is_some_and(|data| data.0 == wanted));
    let next = old
        .iter()
        .map(|revision| revision.revision)
        .max()
        .unwrap_or_default()
        + 1;
    let stored = same.pop();
    let mut current = stored.map_or_else(
        || new_revision(owner, template, wanted, collisions),
        |stored| ControllerRevision::clone(stored),
    );
    current.revision = current.revision.max(next);
    History {
        current_is_stored: stored.is_some_and(|stored| **stored == current),
        current_exists: stored.is_some(),
        current,
        old,
        duplicates: same,
    }
}

fn new_revision<O: Kind>(
    owner: &O,
    template: &PodTemplateSpec,
    data: Value,
    collisions: Option<i32>,
) -> ControllerRevision {
    let hash = hash(template, collisions);
    let meta = owner.metadata();
    let mut name = meta.name.clone().unwrap_or_default();
    name.truncate(223);
    let template_labels = template
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.labels.clone());
    let mut labels = template_labels.unwrap_or_default();
    labels.insert(REVISION_HASH.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations.clone(),
            owner_references: Some(vec![controller_ref::of(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: 0,
    }
}

impl<'a> History<'a> {
    /// The hash of the current revision; its name, if somebody took the label away.
    pub(crate) fn hash(&self) -> &str {
        let labels = self.current.metadata.labels.as_ref();
        let hash = labels.and_then(|labels| labels.get(REVISION_HASH));
        hash.map_or_else(|| self.name(), String::as_str)
    }

    /// The name of the current revision.
    pub(crate) fn name(&self) -> &str {
        self.current.metadata.name.as_deref().unwrap_or_default()
    }

    /// Stores the current revision.
    pub(crate) fn store(&self) -> Option<Action> {
        match (self.current_exists, self.current_is_stored) {
            (false, _) => Some(Action::create(&self.current)),
            (true, false) => Some(Action::update(&self.current)),
            (true, true) => None,
        }
    }

    /// Deletes what is more than `limit` old revisions, the oldest first, but none that `is_live`; and duplicates.
    pub(crate) fn clean_up(
        &self,
        limit: Option<i32>,
        is_live: impl Fn(&ControllerRevision) -> bool,
    ) -> Vec<Action> {
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or_default();
        let dead: Vec<&'a Arc<ControllerRevision>> = self
            .old
            .iter()
            .copied()
            .filter(|revision| !is_live(revision))
            .collect();
        let surplus = self.old.len().saturating_sub(limit);
        let gone = dead
            .into_iter()
            .take(surplus)
            .chain(self.duplicates.iter().copied());
        gone.map(|revision| Action::delete(&**revision)).collect()
    }
}
