//! The machine around [`schedule`](crate::schedule): takes in changes, gives places away, tells what it decided.
//! Upstream: `pkg/scheduler/scheduler.go`, `eventhandlers.go`, `schedule_one.go`.
//!
//! Invariant: a pod that has been given a place is on the snapshot from that moment on, whether or not the binding has
//! been answered yet, so that two pods never get the same room.

use crate::plugins::Rejection;
use crate::pod_info::{PodInfo, selector};
use crate::preemption::{Preemption, preempt};
use crate::queue::{Change, Queue};
use crate::schedule::{Decision, Unfit, schedule};
use crate::snapshot::Snapshot;
use coracle_meta::{GroupVersionResource, Selector, Status};
use coracle_reconcile::{Action, Cache, EventType, Key, Machine, Observation, PatchType, Precondition, Step};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const NAME: &str = "default-scheduler";

/// Kinds that select pods, for spreading: resource, kind, and whether the selector is a plain map.
const SELECTING: [(&str, &str, &str, bool); 4] = [
    ("", "services", "Service", true),
    ("", "replicationcontrollers", "ReplicationController", true),
    ("apps", "replicasets", "ReplicaSet", false),
    ("apps", "statefulsets", "StatefulSet", false),
];

/// See the file's head.
#[derive(Debug, Default)]
pub struct Scheduler {
    snapshot: Snapshot,
    queue: Queue,
    /// Bindings that have not been answered.
    binding: HashMap<u64, Arc<PodInfo>>,
    tickets: u64,
    /// Steps that came up between two rounds.
    pending: Vec<Step>,
}

impl Scheduler {
    /// A scheduler that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn observe_pod(&mut self, pod: Pod) {
        let pod = Arc::new(PodInfo::new(Arc::new(pod)));
        let phase = pod.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            self.forget_pod(&pod.key);
        } else if !pod.node_name().is_empty() {
            self.observe_placed(pod);
        } else {
            self.observe_unplaced(pod);
        }
    }

    fn observe_placed(&mut self, pod: Arc<PodInfo>) {
        self.queue.remove(&pod.key);
        self.snapshot.nominate(&pod, None);
        let node = pod.node_name().to_owned();
        let before = self.snapshot.pod(&pod.key).cloned();
        let shrunk = before.as_ref().is_some_and(|before| {
            before.requests != pod.requests || (pod.is_terminating() && !before.is_terminating())
        });
        let placed = before.is_none_or(|before| before.pod.metadata.labels != pod.pod.metadata.labels);
        self.snapshot.put_pod(pod, &node);
        if placed {
            self.queue.changed(Change::PodPlaced);
        }
        if shrunk {
            self.queue.changed(Change::PodGone);
        }
    }

    fn observe_unplaced(&mut self, pod: Arc<PodInfo>) {
        let spec = pod.pod.spec.clone().unwrap_or_default();
        let ours = spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME;
        let gated = spec
            .scheduling_gates
            .as_ref()
            .is_some_and(|gates| !gates.is_empty());
        if !ours || gated || pod.is_terminating() {
            if self.queue.get(&pod.key).is_some() {
                self.forget_pod(&pod.key);
            }
            return;
        }
        let status = pod.pod.status.as_ref();
        let nominated = status.and_then(|status| status.nominated_node_name.as_deref());
        self.snapshot.nominate(&pod, nominated);
        let Some(before) = self.queue.get(&pod.key) else {
            self.queue.add(pod);
            return;
        };
        let same = before.uid() == pod.uid();
        if same && (self.queue.is_taken(&pod.key) || !differs(before, &pod)) {
            self.queue.refresh(pod);
        } else {
            // A successor of the same name: the place of the one before it is free.
            if !same {
                self.snapshot.remove_pod(&pod.key);
            }
            self.queue.add(pod);
        }
    }

    fn forget_pod(&mut self, key: &Key) {
        if let Some(pod) = self.queue.get(key).cloned() {
            self.snapshot.nominate(&pod, None);
        }
        self.queue.remove(key);
        if self.snapshot.remove_pod(key).is_some() {
            self.queue.changed(Change::PodGone);
        }
    }

    fn observe_node(&mut self, node: Node) {
        let node = Arc::new(node);
        let before = self.snapshot.put_node(node.clone());
        if before.is_none_or(|before| node_differs(&before, &node)) {
            self.queue.changed(Change::Node);
        }
    }

    /// The steps for one pod.
    fn decide(&mut self, pod: &Arc<PodInfo>, now: Timestamp) -> Vec<Step> {
        let tie = usize::try_from(self.tickets).unwrap_or_default();
        match schedule(pod, &self.snapshot, tie) {
            Decision::Bind(node) => vec![self.bind(pod, &node)],
            Decision::Unschedulable(unfit) => self.put_aside(pod, &unfit, now),
        }
    }

    fn bind(&mut self, pod: &Arc<PodInfo>, node: &str) -> Step {
        self.snapshot.put_pod(pod.clone(), node);
        self.snapshot.nominate(pod, None);
        let ticket = self.ticket();
        self.binding.insert(ticket, pod.clone());
        let message = format!("Successfully assigned {} to {node}", pod.key);
        Step {
            ticket,
            action: Action::CreateSubresource {
                resource: Cache::resource_of::<Pod>(),
                key: pod.key.clone(),
                subresource: "binding",
                object: json!({
                    "apiVersion": "v1",
                    "kind": "Binding",
                    "metadata": {"namespace": pod.key.namespace, "name": pod.key.name, "uid": pod.uid()},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": node},
                }),
            },
            events: vec![Action::event(&*pod.pod, EventType::Normal, "Scheduled", message)],
        }
    }

    fn put_aside(&mut self, pod: &Arc<PodInfo>, unfit: &Unfit, now: Timestamp) -> Vec<Step> {
        let mut message = unfit.to_string();
        let mut steps = Vec::new();
        let mut nominated = None;
        if unfit.nodes > 0 {
            match preempt(pod, &self.snapshot, unfit) {
                Preemption::Unhelpful(why) => message.push_str(&format!(" preemption: {why}")),
                Preemption::Evict { node, victims } => {
                    self.snapshot.nominate(pod, Some(&node));
                    for victim in &victims {
                        steps.push(self.evict(victim, pod, &node));
                    }
                    nominated = Some(node);
                }
            }
        }
        steps.push(self.report(pod, &message, nominated.as_deref(), now));
        let plugins = unfit
            .rejections
            .values()
            .map(|rejection: &Rejection| rejection.plugin);
        self.queue.unschedulable(&pod.key, plugins.collect(), now);
        steps
    }

    fn evict(&mut self, victim: &PodInfo, pod: &PodInfo, node: &str) -> Step {
        let message = format!("Preempted by pod {} on node {node}", pod.uid());
        Step {
            ticket: self.ticket(),
            action: Action::Delete {
                resource: Cache::resource_of::<Pod>(),
                key: victim.key.clone(),
                precondition: Precondition {
                    uid: Some(victim.uid().to_owned()),
                    resource_version: None,
                },
                propagation: None,
                grace_seconds: None,
            },
            events: vec![Action::event(
                &*victim.pod,
                EventType::Normal,
                "Preempted",
                message,
            )],
        }
    }

    /// The condition and the Event that say why a pod goes nowhere.
    fn report(&mut self, pod: &PodInfo, message: &str, nominated: Option<&str>, now: Timestamp) -> Step {
        let event = Action::event(&*pod.pod, EventType::Warning, "FailedScheduling", message);
        let status = pod.pod.status.as_ref();
        let conditions = status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        let known = conditions.into_iter().find(|c| c.type_ == "PodScheduled");
        let told = known.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message));
        let ticket = self.ticket();
        if told && nominated.is_none() {
            return Step {
                ticket,
                action: event,
                events: Vec::new(),
            };
        }
        let since = known
            .filter(|c| c.status == "False")
            .and_then(|c| c.last_transition_time.clone());
        let since = since.map_or(now, |time| time.0);
        let mut body = json!({"status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": format!("{:.0}", since),
        }]}});
        if let Some(node) = nominated {
            body["status"]["nominatedNodeName"] = json!(node);
        }
        Step {
            ticket,
            action: Action::Patch {
                resource: Cache::resource_of::<Pod>(),
                key: pod.key.clone(),
                subresource: "status",
                patch_type: PatchType::Strategic,
                body,
            },
            events: vec![event],
        }
    }
}

impl Machine for Scheduler {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resources(&self) -> Vec<GroupVersionResource> {
        let mut resources = vec![
            Cache::resource_of::<Pod>(),
            Cache::resource_of::<Node>(),
            Cache::resource_of::<Namespace>(),
        ];
        resources
            .extend(SELECTING.map(|(group, plural, _, _)| GroupVersionResource::new(group, "v1", plural)));
        resources
    }

    fn observe(
        &mut self,
        resource: &GroupVersionResource,
        observation: Observation<'_>,
        _now: Timestamp,
    ) -> Result<(), serde_json::Error> {
        match (resource.resource.as_str(), observation) {
            ("pods", Observation::Applied(bytes)) => self.observe_pod(serde_json::from_slice(bytes)?),
            ("pods", Observation::Deleted(key)) => self.forget_pod(key),
            ("nodes", Observation::Applied(bytes)) => self.observe_node(serde_json::from_slice(bytes)?),
            ("nodes", Observation::Deleted(key)) => self.snapshot.remove_node(&key.name),
            ("namespaces", Observation::Applied(bytes)) => {
                let namespace: Namespace = serde_json::from_slice(bytes)?;
                let name = namespace.metadata.name.unwrap_or_default();
                let labels = namespace.metadata.labels.unwrap_or_default();
                if self.snapshot.namespace_labels(&name) != Some(&labels) {
                    self.snapshot.set_namespace(&name, Some(labels));
                    self.queue.changed(Change::Namespace);
                }
            }
            ("namespaces", Observation::Deleted(key)) => self.snapshot.set_namespace(&key.name, None),
            (plural, observation) => {
                let Some((_, _, kind, plain)) = SELECTING.iter().find(|kind| kind.1 == plural) else {
                    return Ok(());
                };
                match observation {
                    Observation::Deleted(key) => self.snapshot.set_selector(kind, key, None),
                    Observation::Applied(bytes) => {
                        let (key, selector) = selecting(bytes, *plain)?;
                        self.snapshot.set_selector(kind, &key, selector);
                    }
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, now: Timestamp) -> Vec<Step> {
        let mut steps = std::mem::take(&mut self.pending);
        while let Some(pod) = self.queue.take(now) {
            steps.extend(self.decide(&pod, now));
        }
        steps
    }

    fn finished(&mut self, ticket: u64, result: &Result<Value, Status>, now: Timestamp) {
        let Some(pod) = self.binding.remove(&ticket) else {
            return;
        };
        // After a success the watch will show the pod on its node; it is there already.
        let Err(status) = result else {
            return;
        };
        let current = self
            .queue
            .get(&pod.key)
            .is_some_and(|known| known.uid() == pod.uid());
        if !current {
            return;
        }
        self.snapshot.remove_pod(&pod.key);
        self.queue.changed(Change::PodGone);
        if status.is_not_found() {
            self.queue.remove(&pod.key);
            return;
        }
        self.queue.failed(&pod.key, now);
        let ticket = self.ticket();
        let message = format!("binding rejected: {status}");
        self.pending.push(Step {
            ticket,
            action: Action::event(&*pod.pod, EventType::Warning, "FailedScheduling", message),
            events: Vec::new(),
        });
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.queue.wake_at()
    }
}

/// Whether a pod without a node has changed in what scheduling looks at.
fn differs(before: &PodInfo, after: &PodInfo) -> bool {
    before.pod.spec != after.pod.spec || before.pod.metadata.labels != after.pod.metadata.labels
}

/// Whether a node has changed in what scheduling looks at: not with each heartbeat.
fn node_differs(before: &Node, after: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    before.metadata.labels != after.metadata.labels
        || before.spec != after.spec
        || allocatable(before) != allocatable(after)
}

#[derive(Deserialize)]
struct Selecting<S> {
    metadata: Named,
    #[serde(default = "Option::default")]
    spec: Option<SelectingSpec<S>>,
}

#[derive(Deserialize)]
struct Named {
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct SelectingSpec<S> {
    #[serde(default = "Option::default")]
    selector: Option<S>,
}

/// What an object selects; nothing if it has no selector.
fn selecting(bytes: &[u8], plain: bool) -> Result<(Key, Option<Selector>), serde_json::Error> {
    let key = |named: Named| Key::new(named.namespace, named.name);
    if plain {
        let object: Selecting<BTreeMap<String, String>> = serde_json::from_slice(bytes)?;
        let labels = object.spec.and_then(|spec| spec.selector);
        let labels = labels.filter(|labels| !labels.is_empty());
        Ok((key(object.metadata), labels.map(Selector::from_set)))
    } else {
        let object: Selecting<LabelSelector> = serde_json::from_slice(bytes)?;
        let labels = object.spec.and_then(|spec| spec.selector);
        Ok((key(object.metadata), labels.map(|labels| selector(Some(&labels)))))
    }
}

#[cfg(test)]
mod tests;
