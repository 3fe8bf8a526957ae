use super::*;
use coracle_reconcile::{Key, Metadata};

fn served() -> Vec<Served> {
    [
        ("", "Pod", "pods", true),
        ("apps", "ReplicaSet", "replicasets", true),
        ("apps", "Deployment", "deployments", true),
        ("", "Node", "nodes", false),
    ]
    .into_iter()
    .map(|(group, kind, plural, namespaced)| Served {
        resource: GroupVersionResource::new(group, "v1", plural),
        kind: kind.to_owned(),
        namespaced,
    })
    .collect()
}

/// An API server of two operations, which the collector's requests go to, and which tells it what changes.
struct World {
    collector: GarbageCollector,
    objects: BTreeMap<(GroupVersionResource, Key), Metadata>,
    revision: u64,
    now: Timestamp,
    /// Every write and read, in order.
    log: Vec<String>,
    /// Writes about this name fail.
    broken: Option<&'static str>,
}

fn gvr(kind: &str) -> GroupVersionResource {
    served().into_iter().find(|s| s.kind == kind).unwrap().resource
}

fn owner(kind: &str, name: &str, uid: &str, block: bool) -> OwnerReference {
    let resource = gvr(kind);
    OwnerReference {
        api_version: resource.api_version(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(block),
    }
}

impl World {
    fn new() -> Self {
        Self {
            collector: GarbageCollector::new(served()),
            objects: BTreeMap::new(),
            revision: 0,
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            log: Vec::new(),
            broken: None,
        }
    }

    /// Puts an object; the collector learns of it only if `tell`.
    fn store(&mut self, kind: &str, mut metadata: Metadata, tell: bool) {
        self.revision += 1;
        metadata.resource_version = self.revision.to_string();
        let resource = gvr(kind);
        if tell {
            self.collector
                .observe(&resource, MetadataChange::Applied(&metadata), self.now);
        }
        self.objects.insert((resource, metadata.key()), metadata);
    }

    fn put(&mut self, kind: &str, name: &str, owners: Vec<OwnerReference>) {
        self.store(kind, object(kind, name, owners), true);
    }

    fn remove(&mut self, kind: &str, name: &str) {
        let (resource, key) = (gvr(kind), key(kind, name));
        self.objects.remove(&(resource.clone(), key.clone()));
        self.collector
            .observe(&resource, MetadataChange::Deleted(&key), self.now);
    }

    /// DELETE as the API server does it.
    fn delete(&mut self, kind: &str, name: &str, propagation: Propagation) {
        let mut metadata = self.objects[&(gvr(kind), key(kind, name))].clone();
        let finalizer = match propagation {
            Propagation::Background => None,
            Propagation::Foreground => Some(FOREGROUND),
            Propagation::Orphan => Some(ORPHAN),
        };
        if let Some(finalizer) = finalizer.filter(|f| !metadata.has_finalizer(f)) {
            metadata.finalizers.push(finalizer.to_owned());
        }
        if metadata.finalizers.is_empty() {
            self.remove(kind, name);
        } else {
            metadata.deletion_timestamp = Some(self.now.to_string());
            self.store(kind, metadata, true);
        }
    }

    fn execute(&mut self, request: &Request) -> Result<Value, Status> {
        let kind_of = |resource: &GroupVersionResource| {
            served()
                .into_iter()
                .find(|s| s.resource == *resource)
                .unwrap()
                .kind
        };
        match request {
            Request::Get { resource, key } => {
                self.log.push(format!("get {}/{}", resource.resource, key.name));
                let found = self.objects.get(&(resource.clone(), key.clone()));
                found
                    .map(|m| json!({"metadata": {"uid": m.uid}}))
                    .ok_or_else(|| Status::not_found(&resource.group_resource(), &key.name))
            }
            Request::Write(Action::Delete {
                resource,
                key,
                precondition,
                propagation,
                ..
            }) => {
                self.log.push(format!(
                    "delete {}/{} {:?}",
                    resource.resource,
                    key.name,
                    propagation.unwrap()
                ));
                if self.broken == Some(&key.name) {
                    return Err(Status::internal("broken"));
                }
                let found = self.objects.get(&(resource.clone(), key.clone())).cloned();
                let found = found.ok_or_else(|| Status::not_found(&resource.group_resource(), &key.name))?;
                assert_eq!(precondition.uid.as_ref(), Some(&found.uid));
                if precondition.resource_version.as_ref() != Some(&found.resource_version) {
                    return Err(Status::conflict(&resource.group_resource(), &key.name, "changed"));
                }
                self.delete(&kind_of(resource), &key.name, propagation.unwrap());
                Ok(Value::Null)
            }
            Request::Write(Action::Patch {
                resource, key, body, ..
            }) => {
                self.log.push(format!("patch {}/{}", resource.resource, key.name));
                if self.broken == Some(&key.name) {
                    return Err(Status::internal("broken"));
                }
                let mut found = self.objects[&(resource.clone(), key.clone())].clone();
                assert_eq!(body["metadata"]["uid"], json!(found.uid));
                if body["metadata"]["resourceVersion"] != json!(found.resource_version) {
                    return Err(Status::conflict(&resource.group_resource(), &key.name, "changed"));
                }
                let patched = body["metadata"].as_object().unwrap();
                if let Some(list) = patched.get("finalizers") {
                    found.finalizers = serde_json::from_value(list.clone()).unwrap_or_default();
                }
                if let Some(list) = patched.get("ownerReferences") {
                    found.owner_references = serde_json::from_value(list.clone()).unwrap_or_default();
                }
                let kind = kind_of(resource);
                if found.is_terminating() && found.finalizers.is_empty() {
                    self.remove(&kind, &key.name);
                } else {
                    self.store(&kind, found, true);
                }
                Ok(Value::Null)
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Lets the collector work until it wants nothing more, at most some rounds of waiting.
    fn settle(&mut self) -> Vec<String> {
        for _ in 0..50 {
            let requests = self.collector.step(self.now);
            if requests.is_empty() {
                match self.collector.wake_at() {
                    Some(at) => self.now = at,
                    None => break,
                }
            }
            for (ticket, request) in requests {
                let answer = self.execute(&request);
                self.collector.answered(ticket, &answer, self.now);
            }
        }
        std::mem::take(&mut self.log)
    }

    fn names(&self) -> Vec<&str> {
        self.objects.values().map(|m| m.name.as_str()).collect()
    }
}

fn key(kind: &str, name: &str) -> Key {
    Key::new(if kind == "Node" { "" } else { "d" }, name)
}

fn object(kind: &str, name: &str, owners: Vec<OwnerReference>) -> Metadata {
    Metadata {
        namespace: key(kind, name).namespace,
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        owner_references: owners,
        ..Metadata::default()
    }
}

fn deployment_tree(block: bool) -> World {
    let mut world = World::new();
    world.put("Deployment", "web", vec![]);
    world.put(
        "ReplicaSet",
        "web-1",
        vec![owner("Deployment", "web", "uid-web", block)],
    );
    for pod in ["a", "b"] {
        world.put("Pod", pod, vec![owner("ReplicaSet", "web-1", "uid-web-1", block)]);
    }
    assert_eq!(world.settle(), Vec::<String>::new());
    world
}

#[test]
fn background() {
    let mut world = deployment_tree(true);
    world.delete("Deployment", "web", Propagation::Background);
    assert_eq!(
        world.settle()[0..1],
        ["delete replicasets/web-1 Background".to_owned()]
    );
    assert_eq!(world.names(), Vec::<&str>::new());
}

#[test]
fn foreground_takes_dependents_first() {
    let mut world = deployment_tree(true);
    world.delete("Deployment", "web", Propagation::Foreground);
    let mut log = world.settle();
    log[1..3].sort();
    assert_eq!(
        log,
        [
            "delete replicasets/web-1 Foreground",
            "delete pods/a Background",
            "delete pods/b Background",
            "patch replicasets/web-1",
            "patch deployments/web",
        ]
    );
    assert_eq!(world.names(), Vec::<&str>::new());
}

#[test]
fn foreground_does_not_wait_for_dependents_that_do_not_block() {
    let mut world = deployment_tree(false);
    world.broken = Some("web-1");
    world.delete("Deployment", "web", Propagation::Foreground);
    world.settle();
    assert!(!world.names().contains(&"web"));
    world.broken = None;
    world.settle();
    assert_eq!(world.names(), Vec::<&str>::new());
}

#[test]
fn orphans_stay_and_lose_the_reference() {
    let mut world = deployment_tree(true);
    world.delete("Deployment", "web", Propagation::Orphan);
    assert_eq!(
        world.settle(),
        ["patch replicasets/web-1", "patch deployments/web"]
    );
    assert_eq!(world.names(), ["a", "b", "web-1"]);
    let (resource, key) = (gvr("ReplicaSet"), key("ReplicaSet", "web-1"));
    assert_eq!(world.objects[&(resource, key)].owner_references, []);
}

#[test]
fn an_orphan_that_cannot_be_written_keeps_its_owner() {
    let mut world = deployment_tree(true);
    world.broken = Some("web-1");
    world.delete("Deployment", "web", Propagation::Orphan);
    world.settle();
    assert!(world.names().contains(&"web"));
    world.broken = None;
    world.settle();
    assert_eq!(world.names(), ["a", "b", "web-1"]);
}

#[test]
fn an_owner_that_never_was_is_asked_for_first() {
    let mut world = World::new();
    world.put("Pod", "p", vec![owner("ReplicaSet", "gone", "uid-gone", false)]);
    assert_eq!(
        world.settle(),
        ["get replicasets/gone", "delete pods/p Background"]
    );
    // Another object of that name is not that owner.
    world.put("ReplicaSet", "gone", vec![]);
    world.put("Pod", "q", vec![owner("ReplicaSet", "gone", "uid-before", false)]);
    assert_eq!(
        world.settle(),
        ["get replicasets/gone", "delete pods/q Background"]
    );
    assert_eq!(world.names(), ["gone"]);
}

#[test]
fn an_owner_whose_watch_is_late_is_waited_for() {
    let mut world = World::new();
    world.store("ReplicaSet", object("ReplicaSet", "late", vec![]), false);
    world.put("Pod", "p", vec![owner("ReplicaSet", "late", "uid-late", false)]);
    let requests = world.collector.step(world.now);
    let answer = world.execute(&requests[0].1);
    world.collector.answered(requests[0].0, &answer, world.now);
    assert!(world.collector.wake_at().is_some());
    let shown = world.objects[&(gvr("ReplicaSet"), key("ReplicaSet", "late"))].clone();
    world.store("ReplicaSet", shown, true);
    world.settle();
    assert_eq!(world.names(), ["p", "late"]);
}

#[test]
fn with_one_owner_left_the_reference_to_the_other_goes() {
    let mut world = World::new();
    world.put("ReplicaSet", "r", vec![]);
    world.put("Deployment", "d", vec![]);
    world.put(
        "Pod",
        "p",
        vec![
            owner("ReplicaSet", "r", "uid-r", true),
            owner("Deployment", "d", "uid-d", true),
        ],
    );
    assert_eq!(world.settle(), Vec::<String>::new());
    world.remove("ReplicaSet", "r");
    assert_eq!(world.settle(), ["patch pods/p"]);
    let pod = &world.objects[&(gvr("Pod"), key("Pod", "p"))];
    assert_eq!(pod.owner_references, [owner("Deployment", "d", "uid-d", true)]);
    world.remove("Deployment", "d");
    assert_eq!(world.settle(), ["delete pods/p Background"]);
}

#[test]
fn owners_that_cannot_be_judged_keep_their_dependents() {
    let mut world = World::new();
    let mut unknown = owner("ReplicaSet", "x", "uid-x", true);
    unknown.kind = "Unknown".to_owned();
    world.put("Pod", "p", vec![unknown]);
    // A namespaced owner of an object in no namespace.
    world.put("Node", "n", vec![owner("ReplicaSet", "r", "uid-r", true)]);
    assert_eq!(world.settle(), Vec::<String>::new());
    assert_eq!(world.names(), ["n", "p"]);
}

#[test]
fn a_circle_of_owners_comes_apart() {
    let mut world = World::new();
    world.put("ReplicaSet", "a", vec![owner("Deployment", "b", "uid-b", true)]);
    world.put("Deployment", "b", vec![owner("ReplicaSet", "a", "uid-a", true)]);
    world.settle();
    world.delete("ReplicaSet", "a", Propagation::Foreground);
    world.settle();
    assert_eq!(world.names(), Vec::<&str>::new());
}

#[test]
fn failures_are_tried_again_with_growing_delays() {
    let mut world = deployment_tree(true);
    world.broken = Some("web-1");
    world.remove("Deployment", "web");
    let start = world.now;
    let tried = world.settle().len();
    assert!((5..30).contains(&tried), "{tried}");
    assert!(world.now.duration_since(start) > SignedDuration::from_secs(1));
    world.broken = None;
    world.settle();
    assert_eq!(world.names(), Vec::<&str>::new());
}

#[test]
fn a_recreated_object_of_the_same_name_is_another_one() {
    let mut world = deployment_tree(true);
    let mut again = object(
        "ReplicaSet",
        "web-1",
        vec![owner("Deployment", "web", "uid-web", true)],
    );
    again.uid = "another".to_owned();
    world.store("ReplicaSet", again, true);
    let mut log = world.settle();
    log.sort();
    assert_eq!(log, ["delete pods/a Background", "delete pods/b Background"]);
}
