//! Golden cases and a tiny world that plans are applied to.
//!
//! A case is `testdata/CONTROLLER/CASE.yaml`: first a document with `key` and `now`, then the objects that exist.
//! `CASE.txt` beside it is what the controller does; `UPDATE_GOLDEN=1 cargo test` writes it anew. After that the
//! controller runs on until it rests, and then must have nothing more to do.

use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupVersionResource, Status};
use coracle_reconcile::{Action, Cache, Key, Outcome, PatchType, Plan, Spec};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Objects, and the cache that shows them.
pub(crate) struct World {
    pub cache: Cache,
    pub objects: BTreeMap<(GroupVersionResource, Key), Value>,
    pub now: Timestamp,
    revision: u64,
    rules: Vec<Value>,
}

impl World {
    /// A world that has the kinds that `spec` watches.
    pub(crate) fn new(spec: &Spec, now: Timestamp) -> Self {
        let mut cache = Cache::default();
        spec.register(&mut cache);
        Self {
            cache,
            objects: BTreeMap::new(),
            now,
            revision: 100,
            rules: rules_of(spec.name),
        }
    }

    /// Puts an object as it is.
    pub(crate) fn put(&mut self, object: Value) {
        let resource = self.resource(&object);
        let key = Key::new(object.namespace(), object.name());
        self.show(&resource, &object);
        self.objects.insert((resource, key), object);
    }

    /// The resource of an object, by the kinds that are watched or, for others, by the usual plural.
    fn resource(&self, object: &Value) -> GroupVersionResource {
        let kind = object["kind"].as_str().expect("an object has a kind");
        let api_version = object["apiVersion"]
            .as_str()
            .expect("an object has an apiVersion");
        let (group, version) = coracle_meta::gvk::split_api_version(api_version);
        let mut plural = kind.to_lowercase();
        if plural.ends_with('y') {
            plural.pop();
            plural.push_str("ies");
        } else if plural.ends_with("ss") {
            plural.push_str("es");
        } else if !plural.ends_with("endpoints") {
            plural.push('s');
        }
        GroupVersionResource::new(group, version, plural)
    }

    fn show(&mut self, resource: &GroupVersionResource, object: &Value) {
        if let Some(store) = self.cache.erased_mut(resource) {
            store
                .put(object.clone())
                .unwrap_or_else(|error| panic!("{} is no {}: {error}", object.name(), resource.resource));
        }
    }

    /// Executes one action as the API server would.
    fn execute(&mut self, action: &Action) -> Result<Value, Box<Status>> {
        self.authorize(action);
        self.revision += 1;
        let revision = self.revision.to_string();
        match action {
            Action::Create {
                resource,
                namespace,
                object,
            } => {
                let mut object = object.clone();
                if object.name().is_empty() {
                    let prefix = object.str_at(&["metadata", "generateName"]).unwrap_or_default();
                    object["metadata"]["name"] = json!(format!("{prefix}{revision}"));
                }
                object["metadata"]["namespace"] = json!(namespace);
                object["metadata"]["uid"] = json!(format!("uid-{revision}"));
                object["metadata"]["generation"] = json!(1);
                object["metadata"]["resourceVersion"] = json!(revision);
                object["metadata"]["creationTimestamp"] = json!(self.now.to_string());
                let key = Key::new(namespace.clone(), object.name());
                if self.objects.contains_key(&(resource.clone(), key.clone())) {
                    let taken = Status::already_exists(&resource.group_resource(), &key.name);
                    return Err(Box::new(taken));
                }
                self.show(resource, &object);
                self.objects.insert((resource.clone(), key), object.clone());
                Ok(object)
            }
            Action::Update {
                resource,
                key,
                subresource,
                object,
            } => {
                let before = self.existing(resource, key)?;
                if object.resource_version() != before.resource_version() {
                    let why = "the object has been modified";
                    let conflict = Status::conflict(&resource.group_resource(), &key.name, why);
                    return Err(Box::new(conflict));
                }
                let mut after = before.clone();
                if *subresource == "status" {
                    after["status"] = object["status"].clone();
                } else {
                    after = object.clone();
                    after["status"] = before["status"].clone();
                    if after["spec"] != before["spec"] {
                        after["metadata"]["generation"] = json!(before.generation() + 1);
                    }
                }
                after["metadata"]["resourceVersion"] = json!(revision);
                self.show(resource, &after);
                self.objects
                    .insert((resource.clone(), key.clone()), after.clone());
                Ok(after)
            }
            Action::Patch {
                resource,
                key,
                patch_type,
                body,
                ..
            } => {
                assert_ne!(*patch_type, PatchType::Json, "this world merges only");
                let mut after = self.existing(resource, key)?;
                let before = after.clone();
                let mut body = body.clone();
                if *patch_type == PatchType::Strategic {
                    merge_conditions(&before, &mut body);
                }
                merge(&mut after, &body);
                if after["spec"] != before["spec"] {
                    after["metadata"]["generation"] = json!(before.generation() + 1);
                }
                after["metadata"]["resourceVersion"] = json!(revision);
                self.show(resource, &after);
                self.objects
                    .insert((resource.clone(), key.clone()), after.clone());
                Ok(after)
            }
            Action::Delete { resource, key, .. } => {
                let object = self.existing(resource, key)?;
                self.objects.remove(&(resource.clone(), key.clone()));
                if let Some(store) = self.cache.erased_mut(resource) {
                    store.delete(key);
                }
                Ok(object)
            }
            Action::CreateSubresource { .. } | Action::Event { .. } => Ok(Value::Null),
        }
    }

    /// Panics if the controller's role does not allow an action.
    fn authorize(&self, action: &Action) {
        let (verb, resource, subresource) = match action {
            Action::Create { resource, .. } => ("create", resource, ""),
            Action::CreateSubresource {
                resource,
                subresource,
                ..
            } => ("create", resource, *subresource),
            Action::Update {
                resource,
                subresource,
                ..
            } => ("update", resource, *subresource),
            Action::Patch {
                resource,
                subresource,
                ..
            } => ("patch", resource, *subresource),
            Action::Delete { resource, .. } => ("delete", resource, ""),
            // The recorder writes these as itself.
            Action::Event { .. } => return,
        };
        let name = if subresource.is_empty() {
            resource.resource.clone()
        } else {
            format!("{}/{subresource}", resource.resource)
        };
        let has = |list: &Value, wanted: &str| {
            let list = list.as_array().into_iter().flatten();
            list.into_iter().any(|value| value == wanted || value == "*")
        };
        let allowed = self.rules.iter().any(|rule| {
            has(&rule["verbs"], verb)
                && has(&rule["apiGroups"], &resource.group)
                && has(&rule["resources"], &name)
        });
        assert!(allowed, "the controller's role does not let it {verb} {name}");
    }

    fn existing(&self, resource: &GroupVersionResource, key: &Key) -> Result<Value, Box<Status>> {
        let object = self.objects.get(&(resource.clone(), key.clone()));
        object
            .cloned()
            .ok_or_else(|| Box::new(Status::not_found(&resource.group_resource(), &key.name)))
    }

    /// Plans a key and applies the plan and what follows it. Returns what was done, rendered.
    pub(crate) fn round(&mut self, spec: &Spec, key: &Key) -> String {
        // A world may be shared by several controllers.
        self.rules = rules_of(spec.name);
        let plan = (spec.plan)(key, &self.cache, self.now);
        let mut text = render(&plan);
        let mut outcome = Outcome::default();
        for action in plan.actions() {
            outcome
                .results
                .push(self.execute(action).map_err(|status| *status));
        }
        if let Some(after) = &spec.after {
            let follow_up = after(key, &self.cache, &plan, &outcome, self.now);
            for action in &follow_up {
                self.execute(action).expect("a status write succeeds");
            }
            if !follow_up.is_empty() {
                text.push_str("after\n");
                follow_up
                    .iter()
                    .for_each(|action| render_action(&mut text, action));
            }
        }
        text
    }

    /// Runs a controller until it has nothing to do for a key. Applying a plan twice must plan nothing.
    pub(crate) fn settle(&mut self, spec: &Spec, key: &Key) {
        let mut last = String::new();
        for _ in 0..12 {
            last = self.round(spec, key);
            let quiet = last
                .lines()
                .all(|line| line.starts_with("note ") || line.starts_with("look again"));
            if quiet {
                return;
            }
        }
        panic!("{} {key} never rests; its last round was\n{last}", spec.name);
    }
}

/// What upstream's bootstrap policy allows a controller.
fn rules_of(controller: &str) -> Vec<Value> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../apiserver/src/bootstrap/policy/cluster_roles.json"
    );
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let roles: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
    let name = format!("system:controller:{controller}");
    let role = roles.iter().find(|role| role["name"] == name.as_str());
    let rules = role.and_then(|role| role["rules"].as_array());
    rules.unwrap_or_else(|| panic!("{name} has no role")).clone()
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().expect("made one above").remove(name);
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}

/// The one list that strategic merges of status are about: conditions, by type.
fn merge_conditions(before: &Value, patch: &mut Value) {
    let Some(changed) = patch
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .cloned()
    else {
        return;
    };
    let mut all = before
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for condition in changed {
        match all.iter_mut().find(|known| known["type"] == condition["type"]) {
            Some(known) => merge(known, &condition),
            None => all.push(condition),
        }
    }
    patch["status"]["conditions"] = Value::Array(all);
}

fn render(plan: &Plan) -> String {
    let mut text = String::new();
    for line in &plan.report {
        let _ = writeln!(text, "note {line}");
    }
    for (index, step) in plan.steps.iter().enumerate() {
        let _ = writeln!(text, "step {}", index + 1);
        step.iter().for_each(|action| render_action(&mut text, action));
    }
    if let Some(delay) = plan.requeue_after {
        let _ = writeln!(text, "look again after {delay:?}");
    }
    text
}

fn render_action(text: &mut String, action: &Action) {
    let (head, body) = match action {
        Action::Create {
            resource,
            namespace,
            object,
        } => (format!("create {} in {namespace:?}", resource.resource), object),
        Action::CreateSubresource {
            resource,
            key,
            subresource,
            object,
        } => (
            format!("create {} {key} {subresource}", resource.resource),
            object,
        ),
        Action::Update {
            resource,
            key,
            subresource,
            object,
        } => (
            format!("update {} {key} {subresource}", resource.resource),
            object,
        ),
        Action::Patch {
            resource,
            key,
            subresource,
            body,
            ..
        } => (format!("patch {} {key} {subresource}", resource.resource), body),
        Action::Delete {
            resource,
            key,
            precondition,
            ..
        } => {
            let uid = precondition.uid.as_deref().unwrap_or("any");
            (
                format!("delete {} {key} uid {uid}", resource.resource),
                &Value::Null,
            )
        }
        Action::Event {
            regarding,
            event_type,
            reason,
            message,
        } => {
            let (kind, name) = (&regarding["kind"], &regarding["name"]);
            (
                format!("event {event_type:?} {reason} about {kind} {name}: {message}"),
                &Value::Null,
            )
        }
    };
    let _ = writeln!(text, "  {}", head.trim_end());
    let body = match action {
        // A status write says nothing with the rest of the object.
        Action::Update {
            subresource: "status",
            ..
        } => &body["status"],
        _ => body,
    };
    if !body.is_null() {
        let pretty = serde_json::to_string_pretty(body).expect("JSON values serialise");
        for line in pretty.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
}

/// The documents of a YAML file.
pub(crate) fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The key and the world of a case.
pub(crate) fn load(spec: &Spec, path: &Path) -> (Key, World) {
    let mut documents = documents(path).into_iter();
    let head = documents.next().expect("a case starts with its head");
    let text = head["key"].as_str().expect("the head names the key");
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    let now = head["now"].as_str().unwrap_or("2026-01-01T00:00:00Z");
    let mut world = World::new(spec, now.parse().expect("now is a time"));
    documents.for_each(|object| world.put(object));
    (Key::new(namespace, name), world)
}

/// Checks all cases of a controller.
pub(crate) fn golden(spec: &Spec, folder: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    assert!(!cases.is_empty(), "{} has no cases", folder.display());
    let mut wrong = Vec::new();
    for case in cases {
        let (key, mut world) = load(spec, &case);
        let done = world.round(spec, &key);
        let expected_path = case.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected_path, &done).expect("the golden file is writable");
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if done != expected {
            wrong.push(format!(
                "{}: expected\n{expected}\nbut got\n{done}",
                case.display()
            ));
        }
        world.settle(spec, &key);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
