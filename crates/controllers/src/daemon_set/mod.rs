//! DaemonSet: one pod on each node that the template accepts. Upstream: `pkg/controller/daemon`.
//!
//! Unlike upstream, a pod that failed is replaced ten seconds after it was made instead of after a growing wait.

mod nodes;
mod status;
#[cfg(test)]
mod tests;
mod update;

use crate::controller_history::{History, REVISION_HASH, history};
use crate::replica_set::pod_events;
use crate::{controller_ref, pod, pod_template};
use coracle_reconcile::{Action, Cache, EventType, Key, Outcome, Plan, Spec, Watch};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// So many pods are created or deleted in one go.
const BURST: usize = 250;
/// A pod that failed is not replaced before it is so old: some nodes refuse pods at once, again and again.
const REPLACE_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// The controller of DaemonSets.
pub fn spec() -> Spec {
    Spec::new("daemon-set-controller", plan)
        .event_source("daemonset-controller")
        .watch(Watch::of(|set: &DaemonSet, _| vec![Key::of(set)]))
        .watch(Watch::changes(|old: Option<&Pod>, new: Option<&Pod>, cache| {
            controller_ref::keys::<DaemonSet, Pod>(old, new, cache, selector)
        }))
        .watch(Watch::changes(
            |old: Option<&ControllerRevision>, new: Option<&ControllerRevision>, cache| {
                controller_ref::keys::<DaemonSet, ControllerRevision>(old, new, cache, selector)
            },
        ))
        .watch(Watch::changes(|old: Option<&Node>, new: Option<&Node>, cache| {
            let facts = |node: &Node| {
                let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
                (node.metadata.labels.clone(), taints)
            };
            if old.map(facts) == new.map(facts) {
                return Vec::new();
            }
            cache.list::<DaemonSet>().map(|set| Key::of(&**set)).collect()
        }))
        .after(after)
}

fn selector(set: &DaemonSet) -> coracle_meta::Selector {
    let spec = set.spec.as_ref();
    let selector = spec.map(|spec| controller_ref::selector(&spec.selector));
    // A selector of everything would take the pods of others.
    selector
        .filter(|selector| !selector.is_empty())
        .unwrap_or_else(coracle_meta::Selector::nothing)
}

/// A DaemonSet, the nodes, and its pods on them.
struct Observed<'a> {
    set: &'a Arc<DaemonSet>,
    nodes: Vec<&'a Arc<Node>>,
    /// By the node that they are on or are meant for.
    pods: BTreeMap<&'a str, Vec<&'a Arc<Pod>>>,
    history: History<'a>,
    /// Adoptions and releases.
    claims: Vec<Action>,
}

fn observe<'a>(key: &Key, cache: &'a Cache) -> Option<Observed<'a>> {
    let set = cache.get::<DaemonSet>(&key.namespace, &key.name)?;
    let spec = set.spec.as_ref()?;
    let selector = selector(set);
    let pods = controller_ref::claim::<DaemonSet, Pod>(&**set, &selector, cache, |_| true);
    let revisions =
        controller_ref::claim::<DaemonSet, ControllerRevision>(&**set, &selector, cache, |_| true);
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let mut by_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods.objects {
        // What has ended and is being removed no longer holds the place.
        let is_leaving = pod::is_terminal(pod) && pod.metadata.deletion_timestamp.is_some();
        if let Some(node) = nodes::target(pod).filter(|_| !is_leaving) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    for pods in by_node.values_mut() {
        pods.sort_by_key(|pod| age(pod));
    }
    Some(Observed {
        nodes: cache.list::<Node>().collect(),
        pods: by_node,
        history: history(&**set, &spec.template, &revisions.objects, collisions),
        claims: pods.patches.into_iter().chain(revisions.patches).collect(),
        set,
    })
}

/// Orders pods: those with a node first, then the oldest.
fn age(pod: &Pod) -> (bool, Option<Timestamp>, String) {
    (
        pod::node_name(pod).is_empty(),
        pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

impl Observed<'_> {
    fn on(&self, node: &Node) -> &[&Arc<Pod>] {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        self.pods.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        let labels = pod.metadata.labels.as_ref();
        labels
            .and_then(|labels| labels.get(REVISION_HASH))
            .map(String::as_str)
            == Some(self.history.hash())
    }

    fn min_ready_seconds(&self) -> i32 {
        let spec = self.set.spec.as_ref();
        spec.and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }
}

/// What is to be done about pods.
#[derive(Default)]
struct Changes<'a> {
    /// Nodes that get a pod.
    create: Vec<&'a str>,
    delete: Vec<&'a Arc<Pod>>,
    events: Vec<Action>,
    look_again: Option<Duration>,
}

fn plan(key: &Key, cache: &Cache, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(mut observed) = observe(key, cache) else {
        return plan;
    };
    if observed.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let claims = std::mem::take(&mut observed.claims);
    plan.steps.extend((!claims.is_empty()).then_some(claims));
    plan.steps
        .extend(observed.history.store().map(|action| vec![action]));
    let mut changes = manage(&observed, now);
    if changes.create.is_empty() && changes.delete.is_empty() {
        update::update(&observed, &mut changes, now);
    }
    write(&mut plan, &observed, &changes);
    if changes.create.is_empty() && changes.delete.is_empty() {
        let limit = observed
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.revision_history_limit);
        let old = observed.history.clean_up(limit, |revision| {
            let labels = revision.metadata.labels.as_ref();
            let hash = labels.and_then(|labels| labels.get(REVISION_HASH));
            let mut pods = observed.pods.values().flatten();
            pods.any(|pod| {
                pod.metadata
                    .labels
                    .as_ref()
                    .and_then(|labels| labels.get(REVISION_HASH))
                    == hash
            })
        });
        plan.steps.extend((!old.is_empty()).then_some(old));
    }
    plan.requeue_after = changes.look_again;
    let availability = observed.pods.values().flatten();
    let times = availability.filter_map(|pod| pod::available_at(pod, observed.min_ready_seconds()));
    if let Some(next) = times.filter(|at| *at > now).min()
        && let Ok(wait) = Duration::try_from(next.duration_since(now))
    {
        plan.requeue(wait);
    }
    plan
}

fn write(plan: &mut Plan, observed: &Observed<'_>, changes: &Changes<'_>) {
    if let Some(spec) = &observed.set.spec {
        let template = nodes::template(&spec.template, observed.history.hash());
        let pods = changes.create.iter().take(BURST).map(|node| {
            let mut pod = pod_template::pod(&template, &**observed.set);
            nodes::aim(&mut pod, node);
            Action::create(&pod)
        });
        plan.slow_start(pods);
    }
    let deletes: Vec<Action> = changes
        .delete
        .iter()
        .take(BURST)
        .map(|pod| Action::delete(&***pod))
        .chain(changes.events.iter().cloned())
        .collect();
    plan.steps.extend((!deletes.is_empty()).then_some(deletes));
}

/// Brings one pod to each node that should have one, and takes the others away.
fn manage<'a>(observed: &'a Observed<'a>, now: Timestamp) -> Changes<'a> {
    let mut changes = Changes::default();
    for node in &observed.nodes {
        let placement = nodes::placement(observed.set, node);
        let pods = observed.on(node);
        if placement.runs && pods.is_empty() {
            changes
                .create
                .push(node.metadata.name.as_deref().unwrap_or_default());
        } else if placement.may_stay {
            keep_one(observed, pods, placement.runs, node, &mut changes, now);
        } else {
            let running = pods
                .iter()
                .filter(|pod| pod.metadata.deletion_timestamp.is_none());
            changes.delete.extend(running);
        }
    }
    // Pods that wait for a node that is gone: the scheduler never places them, so nobody else removes them.
    let exists = |name: &str| {
        observed
            .nodes
            .iter()
            .any(|node| node.metadata.name.as_deref() == Some(name))
    };
    for (node, pods) in &observed.pods {
        let stranded = pods.iter().filter(|pod| {
            pod::node_name(pod).is_empty() && pod.metadata.deletion_timestamp.is_none() && !exists(node)
        });
        changes.delete.extend(stranded);
    }
    changes
}

/// On a node that has pods: ended ones go, and of running ones all but one, or during a surge two.
fn keep_one<'a>(
    observed: &Observed<'a>,
    pods: &[&'a Arc<Pod>],
    runs: bool,
    node: &'a Node,
    changes: &mut Changes<'a>,
    now: Timestamp,
) {
    let mut running: Vec<&'a Arc<Pod>> = Vec::new();
    for pod in pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
    {
        if !pod::is_terminal(pod) {
            running.push(pod);
            continue;
        }
        let made = pod
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::MIN, |time| time.0);
        let at = made.checked_add(REPLACE_AFTER).unwrap_or(Timestamp::MAX);
        let failed = pod::phase(pod) == "Failed";
        if failed && at > now {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            changes.look_again = Some(changes.look_again.map_or(wait, |known| known.min(wait)));
            continue;
        }
        changes.delete.push(pod);
        changes.events.push(ended_event(observed.set, pod, node, failed));
    }
    if !update::Bounds::of(observed).surges() {
        changes.delete.extend(running.into_iter().skip(1));
        return;
    }
    if running.is_empty() && runs {
        changes
            .create
            .push(node.metadata.name.as_deref().unwrap_or_default());
        return;
    }
    if running.len() <= 1 {
        return;
    }
    // While surging an old pod may stay beside the new one until that is available.
    let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| observed.is_updated(pod));
    let (first_new, first_old) = (new.first().copied(), old.first().copied());
    changes
        .delete
        .extend(new.into_iter().skip(1).chain(old.into_iter().skip(1)));
    if let (Some(new), Some(old)) = (first_new, first_old)
        && (!pod::is_ready(old) || pod::is_available(new, observed.min_ready_seconds(), now))
    {
        changes.delete.push(old);
    }
}

fn ended_event(set: &DaemonSet, pod: &Pod, node: &Node, failed: bool) -> Action {
    let key = Key::of(pod);
    let node = node.metadata.name.as_deref().unwrap_or_default();
    let (event_type, reason, message) = if failed {
        let message = format!("Found failed daemon pod {key} on node {node}, will try to kill it");
        (EventType::Warning, "FailedDaemonPod", message)
    } else {
        let message = format!("Found succeeded daemon pod {key} on node {node}, will try to delete it");
        (EventType::Normal, "SucceededDaemonPod", message)
    };
    Action::event(set, event_type, reason, message)
}

/// Events about pods, and the status.
fn after(key: &Key, cache: &Cache, plan: &Plan, outcome: &Outcome, now: Timestamp) -> Vec<Action> {
    let Some(observed) = observe(key, cache) else {
        return Vec::new();
    };
    if observed.set.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let mut actions = pod_events(&**observed.set, plan, outcome);
    let status = status::status(&observed, status::collided(plan, outcome, cache, &observed), now);
    if status::differs(observed.set.status.as_ref(), &status) {
        let mut set = DaemonSet::clone(observed.set);
        set.status = Some(status);
        actions.push(Action::update_status(&set));
    }
    actions
}
