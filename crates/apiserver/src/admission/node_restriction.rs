//! A node changes its own objects and its own pods only, and cannot make itself attractive.
//! Upstream: `plugin/pkg/admission/noderestriction`.

use super::{forbidden, items};
use crate::authz::node::node_name;
use crate::plugin::{Admission, AdmissionRequest, Operation, Reader};
use crate::request::Attributes;
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, Status};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// See the file's head.
pub struct NodeRestriction;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels of the system that a node may give itself. Upstream: `kubelet/pkg/apis/well_known_labels.go`.
const NODE_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// Label namespaces that nodes may use, with their subdomains.
const NODE_LABEL_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

impl Admission for NodeRestriction {
    fn admit(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let attributes = request.attributes;
        let Some(node) = node_name(&attributes.user) else {
            return Ok(());
        };
        let check = Check {
            node,
            request,
            reader,
        };
        if node.is_empty() {
            let why = format!("could not determine node from user {:?}", attributes.user.name);
            return Err(forbidden(request, why));
        }
        let result = match (
            attributes.api_group.as_str(),
            attributes.resource.as_str(),
            attributes.subresource.as_str(),
        ) {
            ("", "pods", "") => check.pod(),
            ("", "pods", "status") => check.pod_status(),
            ("", "pods", "eviction") => check.eviction(),
            ("", "pods", other) => Err(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            )),
            ("", "nodes", _) => check.own_node(),
            ("", "persistentvolumeclaims", "status") => check.claim_status(),
            ("", "persistentvolumeclaims", _) => Err("may only update PVC status".to_owned()),
            ("coordination.k8s.io", "leases", _) => check.lease(),
            ("storage.k8s.io", "csinodes", _) => check.named_as_itself("CSINode"),
            _ => Ok(()),
        };
        result.map_err(|why| forbidden(request, why))
    }
}

/// A node asks for tokens of its own pods only. Called by the token subresource, which admission sees no object of.
pub fn check_token_request(
    attributes: &Attributes,
    request: &Value,
    reader: &dyn Reader,
) -> Result<(), Status> {
    let Some(node) = node_name(&attributes.user) else {
        return Ok(());
    };
    let refuse = |why: &str| {
        Err(Status::forbidden(
            &attributes.group_resource(),
            &attributes.name,
            why,
        ))
    };
    let text = |key: &str| {
        let path = ["spec", "boundObjectRef", key];
        request.str_at(&path).unwrap_or_default()
    };
    let name = text("name");
    if text("apiVersion") != "v1" || text("kind") != "Pod" || name.is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    if text("uid").is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pods = GroupResource::new("", "pods");
    let pod = reader
        .get(&pods, &attributes.namespace, name)
        .ok_or_else(|| Status::not_found(&pods, name))?;
    if pod.str_at(&["spec", "nodeName"]) != Some(node) {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    let asked: Vec<&str> = items(request, &["spec", "audiences"])
        .filter_map(Value::as_str)
        .collect();
    let audience = match asked[..] {
        [] => "",
        [one] => one,
        _ => return refuse("node may only request 0 or 1 audiences"),
    };
    let projected = items(&pod, &["spec", "volumes"])
        .flat_map(|volume| items(volume, &["projected", "sources"]))
        .filter_map(|source| source.get("serviceAccountToken"))
        .any(|token| token.str_at(&["audience"]).unwrap_or_default() == audience);
    if projected {
        return Ok(());
    }
    refuse(&format!(
        "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        attributes.user.name
    ))
}

struct Check<'a, 'r> {
    node: &'a str,
    request: &'a AdmissionRequest<'r>,
    reader: &'a dyn Reader,
}

impl Check<'_, '_> {
    fn object(&self) -> &Value {
        self.request.object.as_deref().unwrap_or(&Value::Null)
    }

    fn old(&self) -> &Value {
        self.request.old.unwrap_or(&Value::Null)
    }

    fn is_ours(&self, pod: &Value) -> bool {
        pod.str_at(&["spec", "nodeName"]) == Some(self.node)
    }

    fn pod(&self) -> Result<(), String> {
        let node = self.node;
        match self.request.operation {
            Operation::Create => self.mirror_pod(),
            Operation::Delete if self.is_ours(self.old()) => Ok(()),
            Operation::Delete => Err(format!(
                "node {node:?} can only delete pods with spec.nodeName set to itself"
            )),
            Operation::Update => Err(format!(
                "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
            )),
            Operation::Connect => Ok(()),
        }
    }

    fn mirror_pod(&self) -> Result<(), String> {
        let (node, pod) = (self.node, self.object());
        if pod.annotation(MIRROR).is_none() {
            return Err(format!(
                "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
            ));
        }
        if !self.is_ours(pod) {
            return Err(format!(
                "node {node:?} can only create pods with spec.nodeName set to itself"
            ));
        }
        let owners: Vec<&Value> = items(pod, &["metadata", "ownerReferences"]).collect();
        let [owner] = owners[..] else {
            return Err(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        };
        let text = |key: &str| owner.str_at(&[key]).unwrap_or_default();
        if (text("apiVersion"), text("kind"), text("name")) != ("v1", "Node", node) {
            return Err(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        if owner["controller"] != true {
            return Err(format!(
                "node {node:?} can only create pods with a controller owner reference set to itself"
            ));
        }
        if owner["blockOwnerDeletion"] == true {
            return Err(format!(
                "node {node:?} must not set blockOwnerDeletion on an owner reference"
            ));
        }
        let itself = self.reader.get(&GroupResource::new("", "nodes"), "", node);
        let uid = itself.as_ref().map(ObjectExt::uid).unwrap_or_default();
        if uid != text("uid") {
            return Err(format!(
                "node {node} UID mismatch: expected {} got {uid}",
                text("uid")
            ));
        }
        Ok(())
    }

    fn pod_status(&self) -> Result<(), String> {
        let node = self.node;
        if !self.is_ours(self.old()) {
            return Err(format!(
                "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
            ));
        }
        let (new, old) = (self.object(), self.old());
        if labels(new) != labels(old) {
            return Err(format!("node {node:?} cannot update labels through pod status"));
        }
        for (key, text) in [
            ("resourceClaimStatuses", "resource claim statues"),
            ("extendedResourceClaimStatus", "extended resource claim status"),
        ] {
            if new.at(&["status", key]) != old.at(&["status", key]) {
                return Err(format!("node {node:?} cannot update {text}"));
            }
        }
        Ok(())
    }

    fn eviction(&self) -> Result<(), String> {
        let Attributes { namespace, name, .. } = self.request.attributes;
        let pod = self.reader.get(&GroupResource::new("", "pods"), namespace, name);
        match pod {
            Some(pod) if self.is_ours(&pod) => Ok(()),
            _ => Err(format!(
                "node {} can only evict pods with spec.nodeName set to itself",
                self.node
            )),
        }
    }

    fn claim_status(&self) -> Result<(), String> {
        let essence = |claim: &Value| {
            let mut claim = claim.clone();
            for (part, keys) in [
                ("metadata", &["resourceVersion", "managedFields"][..]),
                (
                    "status",
                    &[
                        "capacity",
                        "conditions",
                        "allocatedResources",
                        "allocatedResourceStatuses",
                    ],
                ),
            ] {
                if let Some(part) = claim.get_mut(part).and_then(Value::as_object_mut) {
                    part.retain(|key, _| !keys.contains(&key.as_str()));
                }
            }
            claim
        };
        if essence(self.object()) == essence(self.old()) {
            return Ok(());
        }
        Err(format!(
            "node {:?} is not allowed to update fields other than status.quantity and status.conditions",
            self.node
        ))
    }

    fn own_node(&self) -> Result<(), String> {
        let node = self.node;
        let attributes = self.request.attributes;
        let name = match attributes.name.as_str() {
            "" => self.object().name(),
            name => name,
        };
        if name != node {
            return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
        }
        let (new, old) = (self.object(), self.old());
        match self.request.operation {
            Operation::Create => {
                if new.at(&["spec", "configSource"]).is_some() {
                    return Err(format!(
                        "node {node:?} is not allowed to create pods with a non-nil configSource"
                    ));
                }
                let taken = forbidden_labels(new, &Value::Null);
                if !taken.is_empty() {
                    let list = taken.join(", ");
                    return Err(format!(
                        "node {node:?} is not allowed to set the following labels: {list}"
                    ));
                }
            }
            Operation::Update => {
                let source = ["spec", "configSource"];
                if new.at(&source).is_some() && new.at(&source) != old.at(&source) {
                    return Err(format!(
                        "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                    ));
                }
                for (path, what) in [
                    (["spec", "taints"], "taints"),
                    (["metadata", "ownerReferences"], "ownerReferences"),
                ] {
                    if !items(new, &path).eq(items(old, &path)) {
                        return Err(format!("node {node:?} is not allowed to modify {what}"));
                    }
                }
                let taken = forbidden_labels(new, old);
                if !taken.is_empty() {
                    return Err(format!("is not allowed to modify labels: {}", taken.join(", ")));
                }
            }
            Operation::Delete | Operation::Connect => {}
        }
        Ok(())
    }

    fn lease(&self) -> Result<(), String> {
        // The authoriser has looked at the namespace already, but not at the name of a new lease.
        if self.request.attributes.namespace != "kube-node-lease" {
            return Err(r#"can only access leases in the "kube-node-lease" system namespace"#.to_owned());
        }
        self.named_as_itself("node lease")
    }

    fn named_as_itself(&self, what: &str) -> Result<(), String> {
        let name = match self.request.operation {
            Operation::Create => self.object().name(),
            _ => &self.request.attributes.name,
        };
        if name == self.node {
            Ok(())
        } else {
            Err(format!(
                "can only access {what} with the same name as the requesting node"
            ))
        }
    }
}

fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object
        .at(&["metadata", "labels"])
        .and_then(Value::as_object)
        .filter(|labels| !labels.is_empty())
}

/// The labels that differ and that a node may not change.
fn forbidden_labels<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let all: BTreeSet<&str> = [new, old]
        .into_iter()
        .filter_map(labels)
        .flat_map(|map| map.keys().map(String::as_str))
        .collect();
    all.into_iter()
        .filter(|key| new.label(key) != old.label(key) && is_forbidden_label(key))
        .collect()
}

fn within(namespace: &str, domain: &str) -> bool {
    namespace
        .strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_forbidden_label(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    if within(namespace, "node-restriction.kubernetes.io") {
        return true;
    }
    let of_system = within(namespace, "kubernetes.io") || within(namespace, "k8s.io");
    let of_nodes = NODE_LABELS.contains(&key) || NODE_LABEL_NAMESPACES.iter().any(|n| within(namespace, n));
    of_system && !of_nodes
}
