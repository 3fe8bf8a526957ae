//! Deletes what nobody owns any more, and carries out deletions in the foreground and with orphans.
//! Upstream: `pkg/controller/garbagecollector`.
//!
//! - An object all of whose owners are gone is deleted. Before an owner that no watch has shown counts as gone, the
//!   API server is asked: watches of different resources run at different speeds.
//! - An object with some owners gone, or waiting for it, loses the references to those.
//! - An owner with the finalizer `foregroundDeletion` keeps it until no dependent with `blockOwnerDeletion` is left;
//!   its dependents are deleted in the foreground themselves.
//! - An owner with the finalizer `orphan` keeps it until no dependent names it.

mod graph;
#[cfg(test)]
mod tests;

pub use graph::{FOREGROUND, Graph, ORPHAN};

use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupVersionResource, Status};
use coracle_reconcile::{
    Action, MetadataChange, MetadataMachine, OwnerReference, PatchType, Precondition, Propagation, Request,
    Served,
};
use graph::{Node, Owner, Uid};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Requests under way at once. Upstream: `--concurrent-gc-syncs`, times two queues.
const CONCURRENT: usize = 40;
/// The first delay after a failure, doubled with each further one.
const SHORTEST_DELAY: SignedDuration = SignedDuration::from_millis(5);
const LONGEST_DELAY: SignedDuration = SignedDuration::from_secs(60);

/// See the file's head.
pub struct GarbageCollector {
    graph: Graph,
    /// Objects to look at, in the order in which they became interesting.
    queue: VecDeque<Uid>,
    queued: HashSet<Uid>,
    /// Objects about which a request is under way. They are looked at again when it has been answered.
    busy: HashSet<Uid>,
    tickets: HashMap<u64, Ticket>,
    next_ticket: u64,
    failures: HashMap<Uid, u32>,
    retries: BTreeMap<(Timestamp, u64), Uid>,
}

struct Ticket {
    about: Uid,
    /// The owner that a GET is about.
    owner: Option<String>,
}

impl GarbageCollector {
    /// Collects objects of these resources. Leave out events: they are many and nobody owns them.
    pub fn new(served: Vec<Served>) -> Self {
        Self {
            graph: Graph::new(served),
            queue: VecDeque::new(),
            queued: HashSet::new(),
            busy: HashSet::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            failures: HashMap::new(),
            retries: BTreeMap::new(),
        }
    }

    fn enqueue(&mut self, uid: &Uid) {
        if self.queued.insert(uid.clone()) {
            self.queue.push_back(uid.clone());
        }
    }

    fn enqueue_dependents(&mut self, owner: &str) {
        let dependents: Vec<Uid> = self.graph.dependents(owner).cloned().collect();
        dependents.iter().for_each(|uid| self.enqueue(uid));
    }

    /// The owners that wait for this object, since it has changed or gone.
    fn enqueue_waiting_owners<'a>(&mut self, owners: impl Iterator<Item = &'a OwnerReference>) {
        for owner in owners {
            let waits = self
                .graph
                .node(&owner.uid)
                .is_some_and(|o| o.is_waiting() || o.is_orphaning());
            if waits {
                self.enqueue(&Uid::from(owner.uid.as_str()));
            }
        }
    }

    fn orphaning_owners(&self, uid: &Uid) -> Vec<Uid> {
        let owners = self.graph.node(uid).into_iter().flat_map(Node::owners);
        owners
            .filter(|owner| self.graph.node(&owner.uid).is_some_and(Node::is_orphaning))
            .map(|owner| Uid::from(owner.uid.as_str()))
            .collect()
    }

    fn gone(&mut self, node: &Node) {
        self.enqueue_waiting_owners(node.owners());
        self.enqueue_dependents(&node.metadata.uid);
        self.failures.remove(node.metadata.uid.as_str());
    }

    fn request(
        &mut self,
        about: &Uid,
        owner: Option<String>,
        request: Request,
        out: &mut Vec<(u64, Request)>,
    ) {
        self.next_ticket += 1;
        self.busy.insert(about.clone());
        let ticket = Ticket {
            about: about.clone(),
            owner,
        };
        self.tickets.insert(self.next_ticket, ticket);
        out.push((self.next_ticket, request));
    }

    /// What to do about an object now.
    fn decide(&self, uid: &Uid) -> Decision {
        let Some(node) = self.graph.node(uid) else {
            return Decision::Nothing;
        };
        if node.is_orphaning() {
            return self.orphan(uid, node);
        }
        if node.is_waiting() {
            let mut dependents = self.graph.dependents(uid).filter_map(|d| self.graph.node(d));
            return if dependents.any(|dependent| dependent.blocks(uid)) {
                Decision::Nothing
            } else {
                Decision::Write(self.without_finalizer(node, FOREGROUND))
            };
        }
        if node.metadata.is_terminating() || node.metadata.owner_references.is_empty() {
            return Decision::Nothing;
        }
        self.collect(uid, node)
    }

    fn collect(&self, uid: &Uid, node: &Node) -> Decision {
        let states: Vec<(&OwnerReference, Owner)> =
            node.owners().map(|o| (o, self.graph.owner(node, o))).collect();
        if let Some((unseen, _)) = states.iter().find(|(_, state)| *state == Owner::Unseen) {
            return match self.graph.place_of(node, unseen) {
                Some((resource, key)) => Decision::Ask(
                    unseen.uid.clone(),
                    Request::Get {
                        resource: resource.clone(),
                        key,
                    },
                ),
                None => Decision::Nothing,
            };
        }
        let has = |wanted: Owner| states.iter().any(|(_, state)| *state == wanted);
        if has(Owner::Solid) || has(Owner::Unresolvable) {
            if !has(Owner::Dangling) && !has(Owner::Waiting) {
                return Decision::Nothing;
            }
            let kept = states
                .iter()
                .filter(|(_, s)| matches!(s, Owner::Solid | Owner::Unresolvable));
            return Decision::Write(self.with_owners(node, kept.map(|(owner, _)| *owner)));
        }
        let has_dependents = self.graph.dependents(uid).next().is_some();
        if has(Owner::Waiting) && has_dependents {
            // A circle of owners that wait for each other: this object stops making its owners wait.
            let circle = self
                .graph
                .dependents(uid)
                .filter_map(|d| self.graph.node(d))
                .any(Node::is_waiting);
            let blocks = node.owners().any(|o| o.block_owner_deletion == Some(true));
            if circle && blocks {
                return Decision::Write(self.unblocked(node));
            }
            return Decision::Write(self.deletion(node, Propagation::Foreground));
        }
        let propagation = if node.metadata.has_finalizer(ORPHAN) {
            Propagation::Orphan
        } else if node.metadata.has_finalizer(FOREGROUND) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        Decision::Write(self.deletion(node, propagation))
    }

    fn orphan(&self, uid: &Uid, node: &Node) -> Decision {
        let patches: Vec<(Uid, Action)> = self
            .graph
            .dependents(uid)
            .filter_map(|dependent| {
                let found = self.graph.node(dependent)?;
                let kept = found.owners().filter(|owner| *owner.uid != **uid);
                Some((dependent.clone(), self.with_owners(found, kept)))
            })
            .collect();
        if patches.is_empty() {
            Decision::Write(self.without_finalizer(node, ORPHAN))
        } else {
            Decision::Release(patches)
        }
    }

    fn deletion(&self, node: &Node, propagation: Propagation) -> Action {
        Action::Delete {
            resource: self.graph.resource(node).clone(),
            key: node.metadata.key(),
            // The revision too: the object might have got another owner in between.
            precondition: Precondition {
                uid: Some(node.metadata.uid.clone()),
                resource_version: Some(node.metadata.resource_version.clone()),
            },
            propagation: Some(propagation),
            grace_seconds: None,
        }
    }

    fn patch(&self, node: &Node, key: &str, list: Vec<Value>) -> Action {
        let metadata = &node.metadata;
        let mut body = json!({
            "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
        });
        body["metadata"][key] = if list.is_empty() { Value::Null } else { list.into() };
        Action::Patch {
            resource: self.graph.resource(node).clone(),
            key: metadata.key(),
            subresource: "",
            patch_type: PatchType::Merge,
            body,
        }
    }

    fn without_finalizer(&self, node: &Node, finalizer: &str) -> Action {
        let kept = node.metadata.finalizers.iter().filter(|f| *f != finalizer);
        self.patch(node, "finalizers", kept.map(|f| json!(f)).collect())
    }

    fn with_owners<'a>(&self, node: &Node, owners: impl Iterator<Item = &'a OwnerReference>) -> Action {
        self.patch(node, "ownerReferences", owners.map(owner_to_json).collect())
    }

    fn unblocked(&self, node: &Node) -> Action {
        let owners: Vec<OwnerReference> = node
            .owners()
            .cloned()
            .map(|owner| OwnerReference {
                block_owner_deletion: owner.block_owner_deletion.map(|_| false),
                ..owner
            })
            .collect();
        self.with_owners(node, owners.iter())
    }

    fn failed(&mut self, uid: &Uid, now: Timestamp) {
        let count = self.failures.entry(uid.clone()).or_default();
        let delay = SHORTEST_DELAY
            .saturating_mul(1 << (*count).min(20))
            .min(LONGEST_DELAY);
        *count += 1;
        self.next_ticket += 1;
        self.retries.insert((now + delay, self.next_ticket), uid.clone());
    }
}

enum Decision {
    Nothing,
    Write(Action),
    /// A GET of the owner with this uid.
    Ask(String, Request),
    /// Dependents with the patches that let them go.
    Release(Vec<(Uid, Action)>),
}

fn owner_to_json(owner: &OwnerReference) -> Value {
    let mut json = json!({
        "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid,
    });
    for (key, value) in [
        ("controller", owner.controller),
        ("blockOwnerDeletion", owner.block_owner_deletion),
    ] {
        if let Some(value) = value {
            json[key] = value.into();
        }
    }
    json
}

impl MetadataMachine for GarbageCollector {
    fn name(&self) -> &'static str {
        "generic-garbage-collector"
    }

    fn observe(&mut self, resource: &GroupVersionResource, change: MetadataChange<'_>, _now: Timestamp) {
        match change {
            MetadataChange::Deleted(key) => {
                if let Some(node) = self.graph.remove(resource, key) {
                    self.gone(&node);
                }
            }
            MetadataChange::Applied(metadata) => {
                let Some((uid, before)) = self.graph.put(resource, metadata) else {
                    return;
                };
                let same = before.as_ref().is_some_and(|b| *b.metadata.uid == *uid);
                if let (Some(other), false) = (&before, same) {
                    self.gone(other);
                }
                let before = before.filter(|_| same);
                // References that it has lost may be what an owner waits for.
                if let Some(before) = &before {
                    self.enqueue_waiting_owners(before.owners());
                }
                let Some(node) = self.graph.node(&uid) else { return };
                let was_waiting = before.as_ref().is_some_and(Node::is_waiting);
                let starts_waiting = node.is_waiting() && !was_waiting;
                let settled = before
                    .as_ref()
                    .is_some_and(|b| b.metadata.owner_references == node.metadata.owner_references);
                let interesting = !node.metadata.owner_references.is_empty() && !settled;
                if interesting || node.is_waiting() || node.is_orphaning() {
                    self.enqueue(&uid);
                }
                if starts_waiting {
                    self.enqueue_dependents(&uid);
                }
                // Its owners may wait for it, and it may just have started to block them or to wait itself.
                self.enqueue_waiting_owners(metadata.owner_references.iter());
            }
        }
    }

    fn step(&mut self, now: Timestamp) -> Vec<(u64, Request)> {
        while let Some(entry) = self.retries.first_entry().filter(|entry| entry.key().0 <= now) {
            let uid = entry.remove();
            self.enqueue(&uid);
        }
        let mut out = Vec::new();
        for _ in 0..self.queue.len() {
            if self.tickets.len() >= CONCURRENT {
                break;
            }
            let Some(uid) = self.queue.pop_front() else { break };
            if self.busy.contains(&uid) {
                // Looked at again when the request has been answered.
                self.queue.push_back(uid);
                continue;
            }
            self.queued.remove(&uid);
            match self.decide(&uid) {
                Decision::Nothing => {
                    self.failures.remove(&uid);
                }
                Decision::Write(action) => self.request(&uid, None, Request::Write(action), &mut out),
                Decision::Ask(owner, request) => self.request(&uid, Some(owner), request, &mut out),
                Decision::Release(patches) => {
                    for (dependent, patch) in patches {
                        if !self.busy.contains(&dependent) {
                            self.request(&dependent, None, Request::Write(patch), &mut out);
                        }
                    }
                }
            }
        }
        out
    }

    fn answered(&mut self, ticket: u64, answer: &Result<Value, Status>, now: Timestamp) {
        let Some(Ticket { about, owner }) = self.tickets.remove(&ticket) else {
            return;
        };
        self.busy.remove(&about);
        match (answer, owner) {
            (Ok(found), Some(owner)) if found.uid() == owner => {
                // It is there after all, and its watch will show it. Until then nothing can be decided.
                self.failed(&about, now);
                return;
            }
            (Ok(_), Some(owner)) => self.graph.set_absent(&owner),
            (Err(status), Some(owner)) if status.is_not_found() => self.graph.set_absent(&owner),
            // What was written, or that it is gone already, the watch will show.
            (Ok(_), None) => {
                self.failures.remove(&about);
                return;
            }
            (Err(status), None) if status.is_not_found() => return,
            (Err(_), _) => {
                self.failed(&about, now);
                // It may have been an owner's wish.
                for owner in self.orphaning_owners(&about) {
                    self.failed(&owner, now);
                }
                return;
            }
        }
        self.enqueue(&about);
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.retries.keys().next().map(|(at, _)| *at)
    }
}
