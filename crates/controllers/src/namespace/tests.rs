use super::*;
use serde_json::json;

fn served() -> Vec<Served> {
    [
        ("", "Pod", "pods"),
        ("", "ConfigMap", "configmaps"),
        ("apps", "ReplicaSet", "replicasets"),
    ]
    .into_iter()
    .map(|(group, kind, plural)| Served {
        resource: GroupVersionResource::new(group, "v1", plural),
        kind: kind.to_owned(),
        namespaced: true,
    })
    .collect()
}

fn gvr(plural: &str) -> GroupVersionResource {
    match plural {
        "namespaces" => GroupVersionResource::new("", "v1", "namespaces"),
        _ => {
            served()
                .into_iter()
                .find(|s| s.resource.resource == plural)
                .unwrap()
                .resource
        }
    }
}

fn metadata(namespace: &str, name: &str) -> Metadata {
    Metadata {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        ..Metadata::default()
    }
}

/// An API server whose objects go at once, unless they have finalizers.
struct World {
    controller: NamespaceController,
    objects: BTreeMap<(String, Key), Metadata>,
    finalizers: Value,
    now: Timestamp,
    log: Vec<String>,
    conditions: Value,
    broken: bool,
}

impl World {
    fn new() -> Self {
        Self {
            controller: NamespaceController::new(served()),
            objects: BTreeMap::new(),
            finalizers: json!(["kubernetes"]),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            log: Vec::new(),
            conditions: Value::Null,
            broken: false,
        }
    }

    fn put(&mut self, plural: &str, object: Metadata) {
        self.controller
            .observe(&gvr(plural), MetadataChange::Applied(&object), self.now);
        self.objects.insert((plural.to_owned(), object.key()), object);
    }

    fn remove(&mut self, plural: &str, key: &Key) {
        self.objects.remove(&(plural.to_owned(), key.clone()));
        self.controller
            .observe(&gvr(plural), MetadataChange::Deleted(key), self.now);
    }

    fn terminate(&mut self) {
        let mut namespace = metadata("", "doomed");
        namespace.deletion_timestamp = Some(self.now.to_string());
        self.put("namespaces", namespace);
    }

    fn execute(&mut self, request: &Request) -> Result<Value, Status> {
        match request {
            Request::List { resource, namespace } => {
                let found = self
                    .objects
                    .iter()
                    .filter(|((plural, key), _)| *plural == resource.resource && key.namespace == *namespace);
                let items: Vec<Value> = found
                    .map(|(_, m)| json!({"metadata": {"namespace": m.namespace, "name": m.name, "uid": m.uid, "finalizers": m.finalizers, "deletionTimestamp": m.deletion_timestamp}}))
                    .collect();
                Ok(json!({"items": items}))
            }
            Request::Get { .. } => Ok(json!({
                "metadata": {"name": "doomed", "uid": "uid-doomed", "deletionTimestamp": "x"},
                "spec": {"finalizers": self.finalizers},
            })),
            Request::Write(Action::Delete { resource, key, .. }) => {
                self.log
                    .push(format!("delete {}/{}", resource.resource, key.name));
                if self.broken {
                    return Err(Status::internal("broken"));
                }
                let found = self
                    .objects
                    .get(&(resource.resource.clone(), key.clone()))
                    .cloned();
                let mut found =
                    found.ok_or_else(|| Status::not_found(&resource.group_resource(), &key.name))?;
                if found.finalizers.is_empty() {
                    self.remove(&resource.resource, key);
                } else {
                    found.deletion_timestamp = Some(self.now.to_string());
                    self.put(&resource.resource, found);
                }
                Ok(Value::Null)
            }
            Request::Write(Action::Update {
                subresource, object, ..
            }) => {
                self.log
                    .push(format!("{subresource} {}", object["spec"]["finalizers"]));
                Ok(Value::Null)
            }
            Request::Write(Action::Patch { body, .. }) => {
                self.log.push("conditions".to_owned());
                self.conditions = body["status"]["conditions"].clone();
                Ok(Value::Null)
            }
            Request::Write(other) => panic!("unexpected {other:?}"),
        }
    }

    /// Works until nothing more is wanted at this time.
    fn settle(&mut self) -> Vec<String> {
        for _ in 0..100 {
            let requests = self.controller.step(self.now);
            if requests.is_empty() {
                break;
            }
            for (ticket, request) in requests {
                let answer = self.execute(&request);
                self.controller.answered(ticket, &answer, self.now);
            }
        }
        std::mem::take(&mut self.log)
    }
}

#[test]
fn pods_first_then_the_rest_then_the_namespace() {
    let mut world = World::new();
    world.put("pods", metadata("doomed", "p"));
    world.put("configmaps", metadata("doomed", "c"));
    world.put("replicasets", metadata("doomed", "r"));
    world.put("configmaps", metadata("other", "stays"));
    assert_eq!(world.settle(), Vec::<String>::new());
    world.terminate();
    assert_eq!(
        world.settle(),
        [
            "delete pods/p",
            "delete configmaps/c",
            "delete replicasets/r",
            "finalize []"
        ]
    );
    assert!(
        world
            .objects
            .contains_key(&("configmaps".to_owned(), Key::new("other", "stays")))
    );
    assert_eq!(world.controller.wake_at(), None);
}

#[test]
fn finalizers_are_waited_for_and_reported() {
    let mut world = World::new();
    let mut pod = metadata("doomed", "p");
    pod.finalizers = vec!["example.org/wait".to_owned()];
    world.put("pods", pod);
    world.terminate();
    assert_eq!(world.settle(), ["delete pods/p", "conditions"]);
    let message = |world: &World, i: usize| world.conditions[i]["message"].as_str().unwrap().to_owned();
    assert_eq!(
        message(&world, 3),
        "Some resources are remaining: pods. has 1 resource instances"
    );
    assert_eq!(
        message(&world, 4),
        "Some content in the namespace has finalizers remaining: example.org/wait in 1 resource instances"
    );
    // Nothing changes, nothing happens.
    assert_eq!(world.settle(), Vec::<String>::new());
    assert_eq!(world.controller.wake_at(), None);
    world.remove("pods", &Key::new("doomed", "p"));
    assert_eq!(world.settle(), ["finalize []"]);
}

#[test]
fn what_no_watch_has_shown_is_found_by_listing() {
    let mut world = World::new();
    world.terminate();
    let late = metadata("doomed", "late");
    world.objects.insert(("configmaps".to_owned(), late.key()), late);
    assert_eq!(world.settle(), ["delete configmaps/late", "finalize []"]);
}

#[test]
fn other_finalizers_of_the_namespace_stay() {
    let mut world = World::new();
    world.finalizers = json!(["kubernetes", "other"]);
    world.terminate();
    assert_eq!(world.settle(), [r#"finalize ["other"]"#]);
    let mut world = World::new();
    world.finalizers = json!(["other"]);
    world.terminate();
    assert_eq!(world.settle(), Vec::<String>::new());
}

#[test]
fn failures_are_tried_again() {
    let mut world = World::new();
    world.put("pods", metadata("doomed", "p"));
    world.broken = true;
    world.terminate();
    assert_eq!(world.settle(), ["delete pods/p"]);
    world.now = world.controller.wake_at().unwrap();
    assert_eq!(world.settle(), ["delete pods/p"]);
    world.broken = false;
    world.now = world.controller.wake_at().unwrap();
    assert_eq!(world.settle(), ["delete pods/p", "finalize []"]);
}
