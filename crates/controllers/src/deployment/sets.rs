//! The ReplicaSets of a Deployment: which one has its template, what they say about its history.
//! Upstream: `pkg/controller/deployment/util`.

use super::scale::Size;
use crate::controller_ref;
use crate::pod_template_hash::{self, hash};
use coracle_reconcile::{Action, Cache, Kind, Outcome, Plan};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Counts the versions of a Deployment.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// A ReplicaSet remembers earlier revisions in so many characters.
const LONGEST_HISTORY: usize = 2000;
const LONGEST_NAME: usize = 253;

/// A ReplicaSet as it is and as it should be.
pub(super) struct Set<'a> {
    /// Absent for one that is to be made.
    pub before: Option<&'a Arc<ReplicaSet>>,
    pub now: ReplicaSet,
}

/// How many pods a ReplicaSet is to have.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

impl Set<'_> {
    pub(super) fn replicas(&self) -> i32 {
        replicas(&self.now)
    }

    pub(super) fn status_replicas(&self) -> i32 {
        self.now.status.as_ref().map_or(0, |status| status.replicas)
    }

    pub(super) fn available(&self) -> i32 {
        let status = self.now.status.as_ref();
        status
            .and_then(|status| status.available_replicas)
            .unwrap_or_default()
    }

    /// Orders by age, the oldest first. One that is yet to be made is the youngest.
    pub(super) fn age(&self) -> (bool, Option<jiff::Timestamp>, String) {
        let meta = &self.now.metadata;
        (
            self.before.is_none(),
            meta.creation_timestamp.as_ref().map(|time| time.0),
            meta.name.clone().unwrap_or_default(),
        )
    }

    /// Sets the number of replicas, if it is another one, and with it what the Deployment's size is.
    pub(super) fn scale(&mut self, replicas: i32, size: &Size) {
        if self.replicas() != replicas {
            self.scale_and_mark(replicas, size);
        }
    }

    /// The same, and notes the Deployment's size in any case.
    pub(super) fn scale_and_mark(&mut self, replicas: i32, size: &Size) {
        self.now.spec.get_or_insert_default().replicas = Some(replicas);
        let annotations = self.now.metadata.annotations.get_or_insert_default();
        annotations.insert(DESIRED_REPLICAS.to_owned(), size.replicas.to_string());
        annotations.insert(MAX_REPLICAS.to_owned(), size.most().to_string());
    }

    fn annotation(&self, key: &str) -> Option<&String> {
        self.now.metadata.annotations.as_ref()?.get(key)
    }

    fn number(&self, key: &str) -> Option<i32> {
        self.annotation(key)?.parse().ok().filter(|number| *number >= 0)
    }

    /// The size of the Deployment that this ReplicaSet knows of.
    pub(super) fn desired_replicas(&self) -> Option<i32> {
        self.number(DESIRED_REPLICAS)
    }

    /// The most pods that the Deployment could have when this ReplicaSet was scaled last.
    pub(super) fn max_replicas(&self) -> Option<i32> {
        self.number(MAX_REPLICAS)
    }

    fn revision(&self) -> i64 {
        self.annotation(REVISION)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }
}

/// The ReplicaSets of a Deployment.
pub(super) struct Sets<'a> {
    /// The one with the Deployment's template.
    pub new: Option<Set<'a>>,
    /// The others.
    pub old: Vec<Set<'a>>,
    /// Old ones that are to go.
    pub forgotten: Vec<&'a Arc<ReplicaSet>>,
}

impl<'a> Sets<'a> {
    /// Sorts out the ReplicaSets of a Deployment. If several have its template, the oldest is the new one.
    pub(super) fn of(deployment: &Deployment, owned: &[&'a Arc<ReplicaSet>]) -> Self {
        let mut old: Vec<Set<'a>> = owned
            .iter()
            .map(|set| Set {
                before: Some(set),
                now: ReplicaSet::clone(set),
            })
            .collect();
        old.sort_by_key(Set::age);
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        let index = old.iter().position(|set| {
            let own = set.now.spec.as_ref().and_then(|spec| spec.template.as_ref());
            own.zip(template)
                .is_some_and(|(own, template)| same_template(own, template))
        });
        Self {
            new: index.map(|index| old.remove(index)),
            old,
            forgotten: Vec::new(),
        }
    }

    /// All of them, the new one last.
    pub(super) fn all(&self) -> impl Iterator<Item = &Set<'a>> {
        self.old.iter().chain(&self.new)
    }

    /// How many pods they are to have together.
    pub(super) fn replicas(&self) -> i32 {
        self.all().map(Set::replicas).sum()
    }

    /// How many of their pods are available.
    pub(super) fn available(&self) -> i32 {
        self.all().map(Set::available).sum()
    }

    /// Whether one with pods knows of another size of the Deployment.
    pub(super) fn disagree_on_size(&self, size: &Size) -> bool {
        let active = self.all().filter(|set| set.replicas() > 0);
        let mut known = active.filter_map(Set::desired_replicas);
        known.any(|desired| desired != size.replicas)
    }

    /// The revision of the new one.
    pub(super) fn revision(&self) -> Option<&String> {
        self.new.as_ref()?.annotation(REVISION)
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(Set::revision).max().unwrap_or_default() + 1
    }

    /// Brings the new ReplicaSet's annotations and readiness time up to the Deployment's.
    pub(super) fn follow_deployment(&mut self, deployment: &Deployment) {
        let revision = self.next_revision();
        if let Some(new) = &mut self.new {
            annotate(&mut new.now, deployment, revision);
            let wanted = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
            if let Some(spec) = &mut new.now.spec
                && spec.min_ready_seconds.unwrap_or_default() != wanted.unwrap_or_default()
            {
                spec.min_ready_seconds = wanted;
            }
        }
    }

    /// Makes the ReplicaSet of the Deployment's template, without pods, if there is none.
    pub(super) fn make_new(&mut self, deployment: &Deployment, size: &Size) {
        if self.new.is_some() {
            return;
        }
        let Some(spec) = &deployment.spec else {
            return;
        };
        let collisions = deployment
            .status
            .as_ref()
            .and_then(|status| status.collision_count);
        let hash = hash(&spec.template, collisions);
        let mut template = spec.template.clone();
        let labels = template
            .metadata
            .get_or_insert_default()
            .labels
            .get_or_insert_default();
        labels.insert(pod_template_hash::LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector.clone();
        let selected = selector.match_labels.get_or_insert_default();
        selected.insert(pod_template_hash::LABEL.to_owned(), hash.clone());
        let mut name = deployment.metadata.name.clone().unwrap_or_default();
        name.truncate(LONGEST_NAME - 1 - hash.len());
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{hash}")),
                namespace: deployment.metadata.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![controller_ref::of(deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let mut set = Set {
            before: None,
            now: set,
        };
        annotate(&mut set.now, deployment, self.next_revision());
        set.scale_and_mark(0, size);
        self.new = Some(set);
    }

    /// Lets go of the oldest versions that are more than the Deployment keeps.
    pub(super) fn forget_old_versions(&mut self, deployment: &Deployment) {
        let limit = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else {
            return;
        };
        let mut candidates: Vec<&Set<'a>> = self
            .old
            .iter()
            .filter(|set| set.now.metadata.deletion_timestamp.is_none())
            .collect();
        let surplus = candidates
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or_default());
        candidates.sort_by_key(|set| (set.revision(), set.age()));
        let idle = candidates.into_iter().take(surplus).filter(|set| {
            let status = set.now.status.as_ref();
            let observed = status
                .and_then(|status| status.observed_generation)
                .unwrap_or_default();
            set.replicas() == 0
                && set.status_replicas() == 0
                && set.now.metadata.generation.unwrap_or_default() <= observed
        });
        self.forgotten = idle.filter_map(|set| set.before).collect();
        let forgotten: Vec<_> = self
            .forgotten
            .iter()
            .map(|set| set.metadata.name.clone())
            .collect();
        self.old.retain(|set| !forgotten.contains(&set.now.metadata.name));
    }
}

/// Copies the Deployment's annotations and sets the revision; the ones that it had before become history.
fn annotate(set: &mut ReplicaSet, deployment: &Deployment, revision: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let before = annotations.get(REVISION).cloned();
    let number = match before.as_deref().unwrap_or_default() {
        "" => 0,
        // A revision that is no number is somebody else's and stays.
        text => match text.parse::<i64>() {
            Ok(number) => number,
            Err(_) => return,
        },
    };
    if number >= revision {
        return;
    }
    annotations.insert(REVISION.to_owned(), revision.to_string());
    if let Some(before) = before {
        remember(annotations, &before);
    }
}

fn remember(annotations: &mut BTreeMap<String, String>, revision: &str) {
    let history = annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|text| !text.is_empty()).collect();
    revisions.push(revision);
    while revisions.join(",").len() > LONGEST_HISTORY && revisions.len() > 1 {
        revisions.remove(0);
    }
    annotations.insert(REVISION_HISTORY.to_owned(), revisions.join(","));
}

/// Whether two templates make the same pods: the hash label is ours.
fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        let metadata = template.metadata.get_or_insert_default();
        if let Some(labels) = &mut metadata.labels {
            labels.remove(pod_template_hash::LABEL);
        }
        metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
        metadata.annotations = metadata
            .annotations
            .take()
            .filter(|annotations| !annotations.is_empty());
        template
    };
    plain(a) == plain(b)
}

/// Why a new ReplicaSet could not be made.
pub(super) struct CreateFailure {
    /// What to tell; absent where telling does not help.
    pub message: Option<String>,
    /// Another ReplicaSet has the name.
    pub collision: bool,
}

/// What became of making the new ReplicaSet, if this plan did: its name, or the failure.
pub(super) fn creation(
    plan: &Plan,
    outcome: &Outcome,
    cache: &Cache,
    deployment: &Deployment,
) -> Option<Result<String, CreateFailure>> {
    let mut results = plan.actions().zip(&outcome.results);
    results.find_map(|(action, result)| {
        let Action::Create {
            resource,
            namespace,
            object,
        } = action
        else {
            return None;
        };
        if resource.resource != ReplicaSet::PLURAL {
            return None;
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let Err(status) = result else {
            return Some(Ok(name));
        };
        if status.is_already_exists() {
            let owner = cache
                .get::<ReplicaSet>(namespace, &name)
                .and_then(|set| controller_ref::controller(&set.metadata));
            let ours = owner.is_some_and(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref());
            let template = deployment.spec.as_ref().map(|spec| &spec.template);
            let same = cache.get::<ReplicaSet>(namespace, &name).is_some_and(|set| {
                let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
                own.zip(template)
                    .is_some_and(|(own, template)| same_template(own, template))
            });
            return Some(Err(CreateFailure {
                message: None,
                collision: !(ours && same),
            }));
        }
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let terminating = causes.into_iter().any(|c| c.reason == "NamespaceTerminating");
        let message = format!("Failed to create new replica set {name:?}: {status}");
        Some(Err(CreateFailure {
            message: (!terminating).then_some(message),
            collision: false,
        }))
    })
}
