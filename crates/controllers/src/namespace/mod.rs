//! Empties namespaces that are deleted, then lets them go. Upstream: `pkg/controller/namespace`.
//!
//! A deletion goes in rounds: list everything in the namespace, delete it (pods before all else, since they may need
//! the rest to end well), wait until it has gone, and list again. A round that finds nothing ends it. Only listing
//! tells: a watch might not have shown yet what was made just before the deletion.

mod conditions;
#[cfg(test)]
mod tests;

use conditions::Remaining;
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupVersionResource, Status};
use coracle_reconcile::{
    Action, Key, Metadata, MetadataChange, MetadataMachine, PatchType, Precondition, Propagation, Request,
    Served,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The finalizer in `spec.finalizers` that is this controller's.
const FINALIZER: &str = "kubernetes";
/// Requests under way at once.
const CONCURRENT: usize = 50;
/// Conditions of a deletion that takes long are written this often at most.
const REPORT_EVERY: SignedDuration = SignedDuration::from_secs(5);
const SHORTEST_DELAY: SignedDuration = SignedDuration::from_millis(20);
const LONGEST_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// See the file's head.
pub struct NamespaceController {
    /// The namespaced resources.
    served: Vec<Served>,
    by_resource: HashMap<GroupVersionResource, usize>,
    namespaces: GroupVersionResource,
    deletions: BTreeMap<String, Deletion>,
    tickets: HashMap<u64, Ticket>,
    next_ticket: u64,
}

/// An object of a namespace: its resource's index, its name.
type Item = (usize, String);

/// A namespace that is being deleted.
struct Deletion {
    uid: String,
    phase: Phase,
    /// What is in it, as far as known.
    content: BTreeMap<Item, Metadata>,
    /// What has been asked to go in this round, with the answer still open or not.
    asked: HashSet<Item>,
    under_way: usize,
    failures: u32,
    retry_at: Option<Timestamp>,
    reported: Option<(Timestamp, Remaining)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// These resources are still to be listed.
    List(Vec<usize>),
    /// The content has to go.
    Empty,
    /// The namespace is to be read.
    Read,
    /// It is to be finalized like this.
    Finalize(Value),
    /// Nothing is left to do.
    Done,
}

enum Ticket {
    List(String, usize),
    Delete(String, Item),
    Read(String),
    Finalize(String),
    Report(String),
}

impl NamespaceController {
    /// Empties namespaces of these resources; those outside of namespaces are ignored.
    pub fn new(served: Vec<Served>) -> Self {
        let served: Vec<Served> = served.into_iter().filter(|s| s.namespaced).collect();
        Self {
            by_resource: served
                .iter()
                .enumerate()
                .map(|(i, s)| (s.resource.clone(), i))
                .collect(),
            served,
            namespaces: GroupVersionResource::new("", "v1", "namespaces"),
            deletions: BTreeMap::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
        }
    }

    fn is_pod(&self, item: &Item) -> bool {
        let resource = &self.served[item.0].resource;
        resource.group.is_empty() && resource.resource == "pods"
    }

    fn remaining(&self, deletion: &Deletion) -> Remaining {
        let mut remaining = Remaining::default();
        for ((resource, _), metadata) in &deletion.content {
            remaining.add(
                &self.served[*resource].resource.group_resource(),
                &metadata.finalizers,
            );
        }
        remaining
    }

    /// The next requests about a namespace, at most so many.
    fn next(
        &self,
        name: &str,
        deletion: &mut Deletion,
        now: Timestamp,
        most: usize,
    ) -> Vec<(Ticket, Request)> {
        if deletion.retry_at.is_some_and(|at| at > now) {
            return Vec::new();
        }
        deletion.retry_at = None;
        let mut out = Vec::new();
        let idle = deletion.under_way == 0;
        match &mut deletion.phase {
            Phase::List(left) => {
                while let Some(index) = if out.len() < most { left.pop() } else { None } {
                    let request = Request::List {
                        resource: self.served[index].resource.clone(),
                        namespace: name.to_owned(),
                    };
                    out.push((Ticket::List(name.to_owned(), index), request));
                }
                if out.is_empty() && left.is_empty() && idle {
                    deletion.phase = if deletion.content.is_empty() {
                        Phase::Read
                    } else {
                        Phase::Empty
                    };
                    return self.next(name, deletion, now, most);
                }
            }
            Phase::Empty if deletion.content.is_empty() && idle => {
                deletion.phase = Phase::List((0..self.served.len()).collect());
                deletion.asked.clear();
                return self.next(name, deletion, now, most);
            }
            Phase::Empty => {
                let pods_first = deletion.content.keys().any(|item| self.is_pod(item));
                let wanted: Vec<Item> = deletion
                    .content
                    .iter()
                    .filter(|(item, metadata)| {
                        !metadata.is_terminating()
                            && !deletion.asked.contains(*item)
                            && (!pods_first || self.is_pod(item))
                    })
                    .map(|(item, _)| item.clone())
                    .take(most)
                    .collect();
                for item in wanted {
                    let request = self.delete(name, &item, &deletion.content[&item]);
                    deletion.asked.insert(item.clone());
                    out.push((Ticket::Delete(name.to_owned(), item), request));
                }
                if out.is_empty() && idle {
                    out.extend(self.report(name, deletion, now));
                }
            }
            Phase::Read if idle => {
                let request = Request::Get {
                    resource: self.namespaces.clone(),
                    key: Key::new("", name),
                };
                out.push((Ticket::Read(name.to_owned()), request));
            }
            Phase::Finalize(object) if idle => {
                let action = Action::Update {
                    resource: self.namespaces.clone(),
                    key: Key::new("", name),
                    subresource: "finalize",
                    object: object.clone(),
                };
                out.push((Ticket::Finalize(name.to_owned()), Request::Write(action)));
            }
            Phase::Read | Phase::Finalize(_) | Phase::Done => {}
        }
        deletion.under_way += out.len();
        out
    }

    fn delete(&self, namespace: &str, (resource, name): &Item, metadata: &Metadata) -> Request {
        Request::Write(Action::Delete {
            resource: self.served[*resource].resource.clone(),
            key: Key::new(namespace, name.as_str()),
            precondition: Precondition {
                uid: Some(metadata.uid.clone()),
                resource_version: None,
            },
            propagation: Some(Propagation::Background),
            grace_seconds: None,
        })
    }

    /// Says in the namespace's conditions what it waits for, if that has changed and not too often.
    fn report(&self, name: &str, deletion: &mut Deletion, now: Timestamp) -> Option<(Ticket, Request)> {
        let remaining = self.remaining(deletion);
        if let Some((at, before)) = &deletion.reported {
            if *before == remaining {
                return None;
            }
            if *at + REPORT_EVERY > now {
                deletion.retry_at = Some(*at + REPORT_EVERY);
                return None;
            }
        }
        let body = remaining.to_status(now);
        deletion.reported = Some((now, remaining));
        let action = Action::Patch {
            resource: self.namespaces.clone(),
            key: Key::new("", name),
            subresource: "status",
            patch_type: PatchType::Merge,
            body,
        };
        Some((Ticket::Report(name.to_owned()), Request::Write(action)))
    }

    fn observe_namespace(&mut self, change: MetadataChange<'_>) {
        match change {
            MetadataChange::Deleted(key) => {
                self.deletions.remove(&key.name);
            }
            MetadataChange::Applied(metadata) if metadata.is_terminating() => {
                let known = self
                    .deletions
                    .get(&metadata.name)
                    .is_some_and(|d| d.uid == metadata.uid);
                if !known {
                    let deletion = Deletion {
                        uid: metadata.uid.clone(),
                        phase: Phase::List((0..self.served.len()).collect()),
                        content: BTreeMap::new(),
                        asked: HashSet::new(),
                        under_way: 0,
                        failures: 0,
                        retry_at: None,
                        reported: None,
                    };
                    self.deletions.insert(metadata.name.clone(), deletion);
                }
            }
            MetadataChange::Applied(metadata) => {
                self.deletions.remove(&metadata.name);
            }
        }
    }
}

impl Deletion {
    fn failed(&mut self, now: Timestamp) {
        let delay = SHORTEST_DELAY
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST_DELAY);
        self.failures += 1;
        self.retry_at = Some(now + delay);
    }

    fn listed(&mut self, resource: usize, list: &Value) {
        self.content.retain(|(index, _), _| *index != resource);
        let items = list.get("items").and_then(Value::as_array);
        for object in items.into_iter().flatten() {
            let metadata = object.get("metadata").cloned().unwrap_or_default();
            // What does not parse is there all the same.
            let metadata: Metadata = serde_json::from_value(metadata).unwrap_or_else(|_| Metadata {
                name: object.name().to_owned(),
                uid: object.uid().to_owned(),
                ..Metadata::default()
            });
            self.content.insert((resource, metadata.name.clone()), metadata);
        }
    }
}

/// The namespace without this controller's finalizer; `None` when it has none.
fn finalized(namespace: &Value) -> Option<Value> {
    let finalizers = namespace.at(&["spec", "finalizers"])?.as_array()?;
    let kept: Vec<&Value> = finalizers
        .iter()
        .filter(|f| f.as_str() != Some(FINALIZER))
        .collect();
    if kept.len() == finalizers.len() {
        return None;
    }
    let kept = serde_json::json!(kept);
    let mut object = namespace.clone();
    object["spec"]["finalizers"] = kept;
    Some(object)
}

impl MetadataMachine for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn observe(&mut self, resource: &GroupVersionResource, change: MetadataChange<'_>, _now: Timestamp) {
        if *resource == self.namespaces {
            return self.observe_namespace(change);
        }
        let Some(index) = self.by_resource.get(resource) else {
            return;
        };
        match change {
            MetadataChange::Applied(metadata) => {
                if let Some(deletion) = self.deletions.get_mut(&metadata.namespace) {
                    let item = (*index, metadata.name.clone());
                    // An object of the same name that has come after the deletion is to be deleted too.
                    let before = deletion.content.insert(item.clone(), metadata.clone());
                    if before.is_none_or(|b| b.uid != metadata.uid) {
                        deletion.asked.remove(&item);
                    }
                }
            }
            MetadataChange::Deleted(key) => {
                if let Some(deletion) = self.deletions.get_mut(&key.namespace) {
                    deletion.content.remove(&(*index, key.name.clone()));
                }
            }
        }
    }

    fn step(&mut self, now: Timestamp) -> Vec<(u64, Request)> {
        let mut deletions = std::mem::take(&mut self.deletions);
        let mut out = Vec::new();
        for (name, deletion) in &mut deletions {
            let room = CONCURRENT.saturating_sub(self.tickets.len());
            if room == 0 {
                break;
            }
            for (ticket, request) in self.next(name, deletion, now, room) {
                self.next_ticket += 1;
                self.tickets.insert(self.next_ticket, ticket);
                out.push((self.next_ticket, request));
            }
        }
        self.deletions = deletions;
        out
    }

    fn answered(&mut self, ticket: u64, answer: &Result<Value, Status>, now: Timestamp) {
        let Some(ticket) = self.tickets.remove(&ticket) else {
            return;
        };
        let (Ticket::List(name, _)
        | Ticket::Delete(name, _)
        | Ticket::Read(name)
        | Ticket::Finalize(name)
        | Ticket::Report(name)) = &ticket;
        let Some(deletion) = self.deletions.get_mut(name) else {
            return;
        };
        deletion.under_way = deletion.under_way.saturating_sub(1);
        match (&ticket, answer) {
            (Ticket::List(_, resource), Ok(list)) => deletion.listed(*resource, list),
            (Ticket::List(_, resource), Err(_)) => {
                if let Phase::List(left) = &mut deletion.phase {
                    left.push(*resource);
                }
                deletion.failed(now);
            }
            // The watch will show it going or gone.
            (Ticket::Delete(..) | Ticket::Report(_), Ok(_)) => {}
            (Ticket::Delete(_, item), Err(status)) if status.is_not_found() => {
                deletion.content.remove(item);
            }
            (Ticket::Delete(_, item), Err(_)) => {
                deletion.asked.remove(item);
                deletion.failed(now);
            }
            (Ticket::Report(_), Err(_)) => deletion.reported = None,
            (Ticket::Read(_), Ok(namespace)) => {
                let terminating = namespace.is_terminating() && namespace.uid() == deletion.uid;
                deletion.phase = finalized(namespace)
                    .filter(|_| terminating)
                    .map_or(Phase::Done, Phase::Finalize);
            }
            (Ticket::Finalize(_), Ok(_)) => deletion.phase = Phase::Done,
            (Ticket::Read(_) | Ticket::Finalize(_), Err(status)) if status.is_not_found() => {
                deletion.phase = Phase::Done;
            }
            (Ticket::Read(_) | Ticket::Finalize(_), Err(_)) => {
                deletion.phase = Phase::Read;
                deletion.failed(now);
            }
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.deletions.values().filter_map(|d| d.retry_at).min()
    }
}
