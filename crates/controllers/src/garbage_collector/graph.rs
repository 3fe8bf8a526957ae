//! Who owns whom: the objects of all kinds by uid, and for each uid its dependents.
//! Upstream: `pkg/controller/garbagecollector/graph.go`.

use coracle_meta::GroupVersionResource;
use coracle_meta::gvk::split_api_version;
use coracle_reconcile::{Key, Metadata, OwnerReference, Served};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Waits in an owner until its dependents have lost their reference to it.
pub const ORPHAN: &str = "orphan";
/// Waits in an owner until its blocking dependents are gone.
pub const FOREGROUND: &str = "foregroundDeletion";

/// Identity of an object.
pub type Uid = Arc<str>;

/// An object.
#[derive(Debug)]
pub struct Node {
    /// Index of its resource.
    pub resource: usize,
    /// What it says of itself.
    pub metadata: Metadata,
}

impl Node {
    /// It waits for its dependents to lose their references.
    pub fn is_orphaning(&self) -> bool {
        self.metadata.is_terminating() && self.metadata.has_finalizer(ORPHAN)
    }

    /// It waits for its blocking dependents to go.
    pub fn is_waiting(&self) -> bool {
        self.metadata.is_terminating() && self.metadata.has_finalizer(FOREGROUND)
    }

    /// Whether its reference to this owner makes the owner wait.
    pub fn blocks(&self, owner: &str) -> bool {
        self.owners()
            .any(|o| o.uid == owner && o.block_owner_deletion == Some(true))
    }

    /// Its owners.
    pub fn owners(&self) -> impl Iterator<Item = &OwnerReference> {
        self.metadata.owner_references.iter()
    }
}

/// What is known of an owner that an object names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It is there.
    Solid,
    /// It is there, deleted, and waits for its dependents.
    Waiting,
    /// It is gone, or was never there.
    Dangling,
    /// Nobody can say: its kind is not served, or it lives in a namespace and the dependent in none.
    Unresolvable,
    /// The watches have not shown it; the API server must be asked.
    Unseen,
}

/// The graph.
pub struct Graph {
    served: Vec<Served>,
    by_resource: HashMap<GroupVersionResource, usize>,
    /// By group and kind: references name whichever version their writer knew.
    by_kind: HashMap<(String, String), usize>,
    nodes: HashMap<Uid, Node>,
    uids: HashMap<(usize, Key), Uid>,
    dependents: HashMap<Uid, HashSet<Uid>>,
    /// Owners that somebody names and that are known not to exist where the reference says.
    absent: HashSet<Uid>,
}

impl Graph {
    /// An empty graph over these resources.
    pub fn new(served: Vec<Served>) -> Self {
        let by_resource = served
            .iter()
            .enumerate()
            .map(|(i, s)| (s.resource.clone(), i))
            .collect();
        let by_kind = served
            .iter()
            .enumerate()
            .map(|(i, s)| ((s.resource.group.clone(), s.kind.clone()), i))
            .collect();
        Self {
            served,
            by_resource,
            by_kind,
            nodes: HashMap::new(),
            uids: HashMap::new(),
            dependents: HashMap::new(),
            absent: HashSet::new(),
        }
    }

    /// The object with this uid.
    pub fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Where objects of a node's kind are served.
    pub fn resource(&self, node: &Node) -> &GroupVersionResource {
        &self.served[node.resource].resource
    }

    /// The uids of the objects that name this owner.
    pub fn dependents(&self, owner: &str) -> impl Iterator<Item = &Uid> {
        self.dependents.get(owner).into_iter().flatten()
    }

    /// Puts an object. Returns its uid, and what was there under the same name before: the same object as it was, or
    /// another one, which is then gone.
    pub fn put(
        &mut self,
        resource: &GroupVersionResource,
        metadata: &Metadata,
    ) -> Option<(Uid, Option<Node>)> {
        let resource = *self.by_resource.get(resource)?;
        let place = (resource, metadata.key());
        let known = self
            .uids
            .get(&place)
            .filter(|uid| ***uid == *metadata.uid)
            .cloned();
        let uid = known.unwrap_or_else(|| Uid::from(metadata.uid.as_str()));
        let before = match self.uids.insert(place, uid.clone()) {
            Some(other) if other != uid => self.remove_node(&other),
            _ => self.unlink(&uid),
        };
        for owner in &metadata.owner_references {
            let owner = Uid::from(owner.uid.as_str());
            self.dependents.entry(owner).or_default().insert(uid.clone());
        }
        self.absent.remove(&uid);
        let node = Node {
            resource,
            metadata: metadata.clone(),
        };
        self.nodes.insert(uid.clone(), node);
        Some((uid, before))
    }

    /// Removes the object at a place.
    pub fn remove(&mut self, resource: &GroupVersionResource, key: &Key) -> Option<Node> {
        let resource = *self.by_resource.get(resource)?;
        let uid = self.uids.remove(&(resource, key.clone()))?;
        self.remove_node(&uid)
    }

    fn remove_node(&mut self, uid: &Uid) -> Option<Node> {
        let node = self.unlink(uid);
        if self.dependents.contains_key(uid) {
            self.absent.insert(uid.clone());
        }
        node
    }

    /// Takes a node out, and out of the dependents of its owners.
    fn unlink(&mut self, uid: &Uid) -> Option<Node> {
        let node = self.nodes.remove(uid)?;
        for owner in node.owners() {
            if let Some(dependents) = self.dependents.get_mut(owner.uid.as_str()) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(owner.uid.as_str());
                    self.absent.remove(owner.uid.as_str());
                }
            }
        }
        Some(node)
    }

    /// The API server says that no such object is where a reference says.
    pub fn set_absent(&mut self, uid: &str) {
        if self.dependents.contains_key(uid) {
            self.absent.insert(Uid::from(uid));
        }
    }

    /// Where an owner would be; `None` when that cannot be said.
    pub fn place_of(&self, node: &Node, owner: &OwnerReference) -> Option<(&GroupVersionResource, Key)> {
        let (index, key) = self.coordinates(node, owner)?;
        Some((&self.served[index].resource, key))
    }

    fn coordinates(&self, node: &Node, owner: &OwnerReference) -> Option<(usize, Key)> {
        let (group, _) = split_api_version(&owner.api_version);
        let index = *self.by_kind.get(&(group.to_owned(), owner.kind.clone()))?;
        let namespace = if !self.served[index].namespaced {
            ""
        } else if node.metadata.namespace.is_empty() {
            return None;
        } else {
            &node.metadata.namespace
        };
        Some((index, Key::new(namespace, owner.name.as_str())))
    }

    /// What is known of an owner that a node names.
    pub fn owner(&self, node: &Node, owner: &OwnerReference) -> Owner {
        let Some((resource, key)) = self.coordinates(node, owner) else {
            return Owner::Unresolvable;
        };
        match self.nodes.get(owner.uid.as_str()) {
            Some(found) if (found.resource, found.metadata.key()) == (resource, key) => {
                if found.is_waiting() {
                    Owner::Waiting
                } else {
                    Owner::Solid
                }
            }
            // The uid belongs to something else than the reference says.
            Some(_) => Owner::Dangling,
            None if self.absent.contains(owner.uid.as_str()) => Owner::Dangling,
            None => Owner::Unseen,
        }
    }
}
