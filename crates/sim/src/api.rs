//! An API server in memory: objects, revisions, a log of changes, and the rules of writing that controllers count on.
//! Addresses and ports of Services come from the API server's own allocators.

use coracle_apiserver::registry::core::service::ip_addresses::IpChange;
use coracle_apiserver::registry::core::service::{IpChanges, PortRange, ServiceAllocator};
use coracle_apiserver::{Admission, AdmissionRequest, Attributes, Operation, Reader, VisitLabels};
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, GroupVersionKind, GroupVersionResource, Status};
use coracle_reconcile::{Action, Cache, Key, Kind, PatchType};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::IPAddress;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::sync::mpsc::UnboundedReceiver;

/// A resource and an object of it.
pub type Id = (GroupVersionResource, Key);

/// One change. Without an object it is a deletion.
#[derive(Debug, Clone)]
pub struct Event {
    /// The revision that it made.
    pub revision: u64,
    /// Of what.
    pub id: Id,
    /// The object as it is now.
    pub object: Option<Value>,
}

/// See the file's head.
pub struct Api {
    /// Everything that exists.
    pub objects: BTreeMap<Id, Value>,
    /// Everything that happened, by revision; the first has revision 1.
    pub log: Vec<Event>,
    /// The time of the simulation.
    pub now: Timestamp,
    /// Writes that a fault lets fail: the next so many updates are overtaken by somebody else.
    pub conflicts: u32,
    allocator: ServiceAllocator,
    ip_changes: UnboundedReceiver<IpChange>,
}

impl Api {
    /// An empty cluster with these ranges. `random` chooses among free addresses and ports.
    pub fn new(network: IpNet, node_ports: (u16, u16), random: fn() -> u64, now: Timestamp) -> Self {
        let (changes, ip_changes) = IpChanges::channel();
        let range = PortRange::new(node_ports.0..=node_ports.1);
        Self {
            objects: BTreeMap::new(),
            log: Vec::new(),
            now,
            conflicts: 0,
            allocator: ServiceAllocator::new(&[network], range, changes).choosing(random),
            ip_changes,
        }
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.log.len() as u64
    }

    /// An object.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&id::<K>(namespace, name))
    }

    /// All objects of a kind.
    pub fn list<K: Kind>(&self) -> impl Iterator<Item = &Value> {
        let resource = Cache::resource_of::<K>();
        let all = self.objects.range((resource.clone(), Key::new("", ""))..);
        all.take_while(move |((of, _), _)| *of == resource)
            .map(|(_, object)| object)
    }

    /// Executes one write.
    pub fn execute(&mut self, action: &Action) -> Result<Value, Status> {
        match action {
            Action::Create {
                resource,
                namespace,
                object,
            } => self.create(resource, namespace, object.clone()),
            Action::Update {
                resource,
                key,
                subresource,
                object,
            } => {
                let before = self.existing(resource, key)?;
                if std::mem::take(&mut self.conflicts) > 0
                    || object.resource_version() != before.resource_version()
                {
                    let why = "the object has been modified";
                    return Err(Status::conflict(&resource.group_resource(), &key.name, why));
                }
                let mut after = object.clone();
                if *subresource == "status" {
                    after = before.clone();
                    after["status"] = object["status"].clone();
                } else {
                    after["status"] = before["status"].clone();
                    // Without a load balancer there is no address of one.
                    if !after["status"]["loadBalancer"].is_null() && after["spec"]["type"] != "LoadBalancer" {
                        after["status"]["loadBalancer"] = json!({});
                    }
                }
                self.change(resource, key, &before, after)
            }
            Action::Patch {
                resource,
                key,
                patch_type,
                body,
                ..
            } => {
                let before = self.existing(resource, key)?;
                let (mut after, mut body) = (before.clone(), body.clone());
                match patch_type {
                    PatchType::Json => return Err(Status::internal("nobody sends JSON patches here")),
                    PatchType::Strategic => merge_conditions(&before, &mut body),
                    PatchType::Merge => {}
                }
                merge(&mut after, &body);
                self.change(resource, key, &before, after)
            }
            Action::Delete {
                resource,
                key,
                precondition,
                grace_seconds,
                ..
            } => {
                let before = self.existing(resource, key)?;
                if precondition.uid.as_deref().is_some_and(|uid| uid != before.uid()) {
                    return Err(Status::conflict(
                        &resource.group_resource(),
                        &key.name,
                        "another uid",
                    ));
                }
                self.delete(resource, key, before, *grace_seconds)
            }
            Action::CreateSubresource {
                resource,
                key,
                subresource: "binding",
                object,
            } => {
                let before = self.existing(resource, key)?;
                if before["spec"]["nodeName"].is_string() || before.is_terminating() {
                    return Err(Status::conflict(
                        &resource.group_resource(),
                        &key.name,
                        "already assigned",
                    ));
                }
                let mut after = before.clone();
                after["spec"]["nodeName"] = object["target"]["name"].clone();
                set_condition(&mut after, "PodScheduled", true, self.now);
                self.change(resource, key, &before, after)
            }
            Action::CreateSubresource { subresource, .. } => {
                Err(Status::internal(format!("nobody serves {subresource} here")))
            }
            Action::Event { .. } => Ok(Value::Null),
        }
    }

    fn existing(&self, resource: &GroupVersionResource, key: &Key) -> Result<Value, Status> {
        let object = self.objects.get(&(resource.clone(), key.clone()));
        object
            .cloned()
            .ok_or_else(|| Status::not_found(&resource.group_resource(), &key.name))
    }

    fn create(
        &mut self,
        resource: &GroupVersionResource,
        namespace: &str,
        object: Value,
    ) -> Result<Value, Status> {
        let mut object = object;
        let revision = self.revision() + 1;
        if object.name().is_empty() {
            let prefix = object.str_at(&["metadata", "generateName"]).unwrap_or_default();
            object["metadata"]["name"] = json!(format!("{prefix}{revision}"));
        }
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object["metadata"]["uid"] = json!(format!("uid-{revision}"));
        object["metadata"]["generation"] = json!(1);
        object["metadata"]["creationTimestamp"] = json!(seconds(self.now));
        if is_pod(resource) {
            object["spec"]["schedulerName"] = json!("default-scheduler");
            object["status"] = json!({"phase": "Pending"});
        }
        let key = Key::new(namespace, object.name());
        self.admit(resource, &key, object, None, |api, object| {
            if api.objects.contains_key(&(resource.clone(), key.clone())) {
                return Err(Status::already_exists(&resource.group_resource(), &key.name));
            }
            Ok(api.commit(resource, &key, object))
        })
    }

    fn change(
        &mut self,
        resource: &GroupVersionResource,
        key: &Key,
        before: &Value,
        mut after: Value,
    ) -> Result<Value, Status> {
        if after["spec"] != before["spec"] {
            after["metadata"]["generation"] = json!(before.generation() + 1);
        }
        if after.is_terminating() && finalizers(&after) == 0 && !is_pod(resource) {
            return Ok(self.remove(resource, key));
        }
        if after == *before {
            return Ok(after);
        }
        self.admit(resource, key, after, Some(before), |api, object| {
            Ok(api.commit(resource, key, object))
        })
    }

    fn delete(
        &mut self,
        resource: &GroupVersionResource,
        key: &Key,
        before: Value,
        grace_seconds: Option<i64>,
    ) -> Result<Value, Status> {
        // A Pod that runs ends by itself, and its node says when.
        let runs = is_pod(resource) && before["spec"]["nodeName"].is_string();
        let grace = grace_seconds.unwrap_or(30);
        if finalizers(&before) == 0 && (!runs || grace == 0) {
            return Ok(self.remove(resource, key));
        }
        if before.is_terminating() {
            return Ok(before);
        }
        let mut after = before;
        let end = self.now + SignedDuration::from_secs(if runs { grace } else { 0 });
        after["metadata"]["deletionTimestamp"] = json!(seconds(end));
        Ok(self.commit(resource, key, after))
    }

    /// Lets the Services' allocator see a write, and tells it how the write ended.
    fn admit(
        &mut self,
        resource: &GroupVersionResource,
        key: &Key,
        mut object: Value,
        old: Option<&Value>,
        commit: impl FnOnce(&mut Self, Value) -> Result<Value, Status>,
    ) -> Result<Value, Status> {
        if *resource != Cache::resource_of::<Service>() {
            return commit(self, object);
        }
        let attributes = Attributes {
            resource: resource.resource.clone(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            ..Attributes::default()
        };
        let kind = GroupVersionKind::new("", "v1", "Service");
        let operation = if old.is_some() {
            Operation::Update
        } else {
            Operation::Create
        };
        let options = Value::Null;
        let mut request = AdmissionRequest {
            operation,
            attributes: &attributes,
            kind: &kind,
            object: Some(&mut object),
            old,
            dry_run: false,
            options: &options,
            warnings: Vec::new(),
        };
        self.allocator.admit(&mut request, &Nothing)?;
        let admitted = request.object.as_deref().cloned().unwrap_or_default();
        // The commit borrows all of this server, so the request is made anew for its end.
        let result = commit(self, admitted);
        let mut object = object;
        let request = AdmissionRequest {
            operation,
            attributes: &attributes,
            kind: &kind,
            object: Some(&mut object),
            old,
            dry_run: false,
            options: &options,
            warnings: Vec::new(),
        };
        self.allocator.finish(&request, result.is_ok());
        result
    }

    fn commit(&mut self, resource: &GroupVersionResource, key: &Key, mut object: Value) -> Value {
        let revision = self.revision() + 1;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let id = (resource.clone(), key.clone());
        self.objects.insert(id.clone(), object.clone());
        self.log.push(Event {
            revision,
            id,
            object: Some(object.clone()),
        });
        object
    }

    fn remove(&mut self, resource: &GroupVersionResource, key: &Key) -> Value {
        let id = (resource.clone(), key.clone());
        let old = self.objects.remove(&id).unwrap_or_default();
        self.log.push(Event {
            revision: self.revision() + 1,
            id,
            object: None,
        });
        self.allocator.removed(&resource.group_resource(), &old);
        old
    }

    /// Deletes one object whose owner is gone: what the garbage collector does. False if there is none.
    pub fn collect_garbage(&mut self) -> bool {
        let uids: std::collections::BTreeSet<&str> =
            self.objects.values().map(|object| object.uid()).collect();
        let is_orphan = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| {
                let known = |owner: &Value| owner["uid"].as_str().is_some_and(|uid| uids.contains(uid));
                !owners.is_empty() && !owners.iter().any(known)
            })
        };
        let orphan = self
            .objects
            .iter()
            .find(|(_, object)| !object.is_terminating() && is_orphan(object));
        let Some(((resource, key), object)) = orphan.map(|(id, object)| (id.clone(), object.clone())) else {
            return false;
        };
        self.delete(&resource, &key, object, None).is_ok()
    }

    /// Writes or deletes one IPAddress object, as the API server's own task does. False if none is due.
    pub fn keep_ip_addresses(&mut self) -> bool {
        let Ok(change) = self.ip_changes.try_recv() else {
            return false;
        };
        let resource = Cache::resource_of::<IPAddress>();
        // A refusal says that it is so already.
        let _ = match change {
            IpChange::Allocated { ip, namespace, name } => {
                let object = json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
                    "metadata": {"name": ip.to_string(), "labels": {
                        "ipaddress.kubernetes.io/ip-family": if ip.is_ipv6() { "IPv6" } else { "IPv4" },
                        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                    }},
                    "spec": {"parentRef": {
                        "group": "", "resource": "services", "namespace": namespace, "name": name,
                    }},
                });
                self.create(&resource, "", object)
            }
            IpChange::Released(ip) => {
                let key = Key::new("", ip.to_string());
                self.existing(&resource, &key)
                    .and_then(|object| self.delete(&resource, &key, object, None))
            }
        };
        true
    }
}

/// The allocator reads nothing.
struct Nothing;

impl Reader for Nothing {
    fn get(&self, _: &GroupResource, _: &str, _: &str) -> Option<Value> {
        None
    }
    fn list(&self, _: &GroupResource, _: Option<&str>) -> Vec<Value> {
        Vec::new()
    }
    fn visit_labels(&self, _: &GroupResource, _: &str, _: &mut VisitLabels<'_>) {}
    fn changed_at(&self, _: &GroupResource) -> u64 {
        0
    }
}

/// Names an object.
pub fn id<K: Kind>(namespace: &str, name: &str) -> Id {
    (Cache::resource_of::<K>(), Key::new(namespace, name))
}

fn is_pod(resource: &GroupVersionResource) -> bool {
    *resource == Cache::resource_of::<Pod>()
}

fn finalizers(object: &Value) -> usize {
    object["metadata"]["finalizers"].as_array().map_or(0, Vec::len)
}

/// Times on the wire have whole seconds.
pub fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("the seconds of a timestamp are one")
}

/// Sets a condition in the status of an object.
pub fn set_condition(object: &mut Value, type_: &str, is_true: bool, now: Timestamp) {
    let condition = json!({
        "type": type_, "status": if is_true { "True" } else { "False" }, "lastTransitionTime": seconds(now),
    });
    let mut patch = json!({"status": {"conditions": [condition]}});
    merge_conditions(object, &mut patch);
    merge(object, &patch);
}

/// RFC 7386.
pub fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if !value.is_null() {
            merge(&mut target[name.as_str()], value);
        } else if let Some(object) = target.as_object_mut() {
            object.remove(name);
        }
    }
}

/// The one list that strategic merges of these controllers are about: conditions, by type.
fn merge_conditions(before: &Value, patch: &mut Value) {
    let Some(changed) = patch
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .cloned()
    else {
        return;
    };
    let all = before.pointer("/status/conditions").and_then(Value::as_array);
    let mut all = all.cloned().unwrap_or_default();
    for condition in changed {
        match all.iter_mut().find(|known| known["type"] == condition["type"]) {
            Some(known) => merge(known, &condition),
            None => all.push(condition),
        }
    }
    patch["status"]["conditions"] = Value::Array(all);
}
