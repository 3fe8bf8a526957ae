//! What a node may do: its own objects, and of others' those that its pods name. Upstream:
//! `plugin/pkg/auth/authorizer/node`, with `AuthorizeNodeWithSelectors`.
//!
//! Upstream keeps a graph from secrets to nodes. Here the pods of the one namespace are looked at, since a node
//! asks for such objects once a pod.

use super::rbac::PolicyRule;
use crate::bootstrap::policy;
use crate::plugin::{Authorizer, Decision, Reader};
use crate::request::{Attributes, UserInfo};
use coracle_meta::GroupResource;
use coracle_meta::object::ObjectExt;
use serde_json::Value;

const NODES_GROUP: &str = "system:nodes";

/// The node that the user is, if it is one.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    user.name
        .strip_prefix("system:node:")
        .filter(|_| user.in_group(NODES_GROUP))
}

/// Allows nodes what they need.
pub struct NodeAuthorizer {
    /// Those of the cluster role `system:node`.
    rules: Vec<PolicyRule>,
}

impl Default for NodeAuthorizer {
    fn default() -> Self {
        Self {
            rules: policy::cluster_role_rules("system:node"),
        }
    }
}

fn no(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

fn allow_if(allowed: bool, reason: impl FnOnce() -> String) -> Decision {
    if allowed { Decision::Allow } else { no(reason()) }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes, reader: &dyn Reader) -> Decision {
        let Some(node) = node_name(&attributes.user) else {
            return no("");
        };
        if node.is_empty() {
            return no(format!("unknown node for user {:?}", attributes.user.name));
        }
        let request = Request {
            node,
            attributes,
            reader,
        };
        if attributes.is_resource_request {
            match (attributes.api_group.as_str(), attributes.resource.as_str()) {
                ("", "secrets") => {
                    return request.read_named(|pod, name| secret_names(pod).any(|n| n == name));
                }
                ("", "configmaps") => {
                    return request.read_named(|pod, name| config_map_names(pod).any(|n| n == name));
                }
                ("", "persistentvolumeclaims") => return request.claim(),
                ("", "persistentvolumes") => return request.volume(),
                ("", "serviceaccounts") => return request.service_account(),
                ("coordination.k8s.io", "leases") => return request.lease(),
                ("storage.k8s.io", "csinodes") => return request.own_named("CSINode"),
                ("", "nodes") => return request.own_node(),
                ("", "pods") => return request.pods(),
                _ => {}
            }
        }
        allow_if(self.rules.iter().any(|rule| rule.allows(attributes)), String::new)
    }
}

struct Request<'a> {
    node: &'a str,
    attributes: &'a Attributes,
    reader: &'a dyn Reader,
}

impl Request<'_> {
    fn verb(&self) -> &str {
        &self.attributes.verb
    }

    fn subresource(&self) -> &str {
        &self.attributes.subresource
    }

    /// Allowed if one of the node's pods in the namespace names the object.
    fn related(&self, names: impl Fn(&Value, &str) -> bool) -> Decision {
        let Attributes { namespace, name, .. } = self.attributes;
        if name.is_empty() {
            return no("No Object name found");
        }
        let pods = self.reader.list(&GroupResource::new("", "pods"), Some(namespace));
        let related = pods
            .iter()
            .any(|pod| pod.str_at(&["spec", "nodeName"]) == Some(self.node) && names(pod, name));
        allow_if(related, || self.unrelated())
    }

    fn unrelated(&self) -> String {
        format!(
            "no relationship found between node '{}' and this object",
            self.node
        )
    }

    fn read_named(&self, names: impl Fn(&Value, &str) -> bool) -> Decision {
        if !matches!(self.verb(), "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !self.subresource().is_empty() {
            return no("cannot read subresource");
        }
        if self.attributes.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(names)
    }

    fn claim(&self) -> Decision {
        let names = |pod: &Value, name: &str| claim_names(pod).any(|n| n == name);
        match (self.subresource(), self.verb()) {
            ("status", "update" | "patch") => self.related(names),
            ("status", _) => no("can only get/update/patch this type"),
            ("", "get") => self.related(names),
            ("", _) => no("can only get individual resources of this type"),
            _ => no("cannot get subresource"),
        }
    }

    /// A volume is related through the claim that it is bound to.
    fn volume(&self) -> Decision {
        if self.verb() != "get" {
            return no("can only get individual resources of this type");
        }
        if !self.subresource().is_empty() {
            return no("cannot get subresource");
        }
        let resource = GroupResource::new("", "persistentvolumes");
        let volume = self.reader.get(&resource, "", &self.attributes.name);
        let claim = volume.as_ref().and_then(|v| v.at(&["spec", "claimRef"]));
        let Some(claim) = claim else {
            return no(self.unrelated());
        };
        let claimed = Attributes {
            namespace: claim.str_at(&["namespace"]).unwrap_or_default().to_owned(),
            name: claim.str_at(&["name"]).unwrap_or_default().to_owned(),
            ..self.attributes.clone()
        };
        let through_claim = Request {
            attributes: &claimed,
            ..*self
        };
        through_claim.related(|pod, name| claim_names(pod).any(|n| n == name))
    }

    fn service_account(&self) -> Decision {
        let names = |pod: &Value, name: &str| pod.str_at(&["spec", "serviceAccountName"]) == Some(name);
        match (self.verb(), self.subresource()) {
            ("get", "") => self.read_named(names),
            ("create", "token") if !self.attributes.name.is_empty() => self.related(names),
            ("create", sub) if sub != "token" => no("can only create token subresource of serviceaccount"),
            _ => no("can only create tokens for individual service accounts"),
        }
    }

    fn lease(&self) -> Decision {
        if !matches!(self.verb(), "get" | "create" | "update" | "patch" | "delete") {
            return no("can only get, create, update, patch, or delete a node lease");
        }
        if self.attributes.namespace != "kube-node-lease" {
            return no(r#"can only access leases in the "kube-node-lease" system namespace"#);
        }
        // The name of a new lease is not in the URL: NodeRestriction looks at it.
        allow_if(
            self.verb() == "create" || self.attributes.name == self.node,
            || "can only access node lease with the same name as the requesting node".to_owned(),
        )
    }

    fn own_named(&self, kind: &str) -> Decision {
        if !matches!(self.verb(), "get" | "create" | "update" | "patch" | "delete") {
            return no(format!("can only get, create, update, patch, or delete a {kind}"));
        }
        if !self.subresource().is_empty() {
            return no(format!("cannot authorize {kind} subresources"));
        }
        allow_if(
            self.verb() == "create" || self.attributes.name == self.node,
            || format!("can only access {kind} with the same name as the requesting node"),
        )
    }

    /// Writes of other nodes' objects are refused by NodeRestriction.
    fn own_node(&self) -> Decision {
        match (self.subresource(), self.verb()) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Decision::Allow,
            ("", "get" | "list" | "watch") => {
                let node = self.node;
                match self.attributes.name.as_str() {
                    name if name == node => Decision::Allow,
                    "" => no(format!(
                        "node '{node}' cannot read all nodes, only its own Node object"
                    )),
                    name => no(format!(
                        "node '{node}' cannot read '{name}', only its own Node object"
                    )),
                }
            }
            _ => no(""),
        }
    }

    fn pods(&self) -> Decision {
        let itself = |pod: &Value, name: &str| pod.name() == name;
        match (self.subresource(), self.verb()) {
            ("", "get") => self.related_pod(),
            ("", "list" | "watch") => {
                if selects_node(&self.attributes.field_selector, self.node) {
                    Decision::Allow
                } else if self.attributes.name.is_empty() {
                    no("can only list/watch pods with spec.nodeName field selector")
                } else {
                    self.related(itself)
                }
            }
            // For mirror pods, its pods' status and evictions; NodeRestriction looks at whose they are.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Decision::Allow
            }
            _ => no(""),
        }
    }

    fn related_pod(&self) -> Decision {
        let Attributes { namespace, name, .. } = self.attributes;
        let pod = self.reader.get(&GroupResource::new("", "pods"), namespace, name);
        let related = pod.is_some_and(|pod| pod.str_at(&["spec", "nodeName"]) == Some(self.node));
        allow_if(related, || self.unrelated())
    }
}

fn selects_node(selector: &str, node: &str) -> bool {
    selector.split(',').any(|term| {
        let value = term.trim().strip_prefix("spec.nodeName=");
        value.map(|v| v.strip_prefix('=').unwrap_or(v)) == Some(node)
    })
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .filter_map(|key| pod.at(&["spec", key])?.as_array())
        .flatten()
}

fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    pod.at(&["spec", "volumes"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The names under `key` in `envFrom` and `env` of all containers: `secretRef`/`secretKeyRef` and their like.
fn environment_names<'a>(
    pod: &'a Value,
    from: &'static str,
    key: &'static str,
) -> impl Iterator<Item = &'a str> {
    containers(pod).flat_map(move |container| {
        let whole = items(container, "envFrom").filter_map(move |e| e.str_at(&[from, "name"]));
        let single = items(container, "env").filter_map(move |e| e.str_at(&["valueFrom", key, "name"]));
        whole.chain(single)
    })
}

fn projected_names<'a>(pod: &'a Value, source: &'static str) -> impl Iterator<Item = &'a str> {
    volumes(pod)
        .filter_map(|v| v.at(&["projected", "sources"])?.as_array())
        .flatten()
        .filter_map(move |s| s.str_at(&[source, "name"]))
}

fn secret_names(pod: &Value) -> impl Iterator<Item = &str> {
    const REFERENCES: [&[&str]; 8] = [
        &["secret", "secretName"],
        &["azureFile", "secretName"],
        &["cephfs", "secretRef", "name"],
        &["rbd", "secretRef", "name"],
        &["flexVolume", "secretRef", "name"],
        &["iscsi", "secretRef", "name"],
        &["scaleIO", "secretRef", "name"],
        &["csi", "nodePublishSecretRef", "name"],
    ];
    let in_volumes = volumes(pod).flat_map(|v| REFERENCES.iter().filter_map(move |path| v.str_at(path)));
    let pulls = pod.at(&["spec", "imagePullSecrets"]).and_then(Value::as_array);
    let pulls = pulls.into_iter().flatten().filter_map(|s| s.str_at(&["name"]));
    in_volumes
        .chain(pulls)
        .chain(projected_names(pod, "secret"))
        .chain(environment_names(pod, "secretRef", "secretKeyRef"))
}

fn config_map_names(pod: &Value) -> impl Iterator<Item = &str> {
    volumes(pod)
        .filter_map(|v| v.str_at(&["configMap", "name"]))
        .chain(projected_names(pod, "configMap"))
        .chain(environment_names(pod, "configMapRef", "configMapKeyRef"))
}

/// Claims that the pod names, and those made for its ephemeral volumes, which are called `POD-VOLUME`.
fn claim_names(pod: &Value) -> impl Iterator<Item = String> {
    volumes(pod).filter_map(|v| {
        let named = v
            .str_at(&["persistentVolumeClaim", "claimName"])
            .map(str::to_owned);
        named.or_else(|| {
            v.get("ephemeral")
                .map(|_| format!("{}-{}", pod.name(), v["name"].as_str().unwrap_or_default()))
        })
    })
}

#[cfg(test)]
mod tests;
