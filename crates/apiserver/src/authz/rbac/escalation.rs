//! Nobody grants what they do not hold. Upstream: `pkg/registry/rbac/escalation_check.go` and the `policybased`
//! storages of the four kinds.

use super::policy::{Policy, role_ref_of, rules_of};
use super::rule::{PolicyRule, compact, quoted_list, uncovered};
use super::{GROUP, Rbac};
use crate::authz::{PRIVILEGED_GROUP, authorize};
use crate::plugin::{Admission, AdmissionRequest, Authorizer, Decision, Operation, Reader};
use crate::request::{Attributes, UserInfo};
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, Status};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Whether the user holds all of `rules` in the namespace already; otherwise upstream's complaint.
pub fn confirm_no_escalation(
    policy: &Policy,
    user: &UserInfo,
    namespace: &str,
    rules: &[PolicyRule],
) -> Result<(), String> {
    let (held, errors) = policy.rules_for(user, namespace);
    let missing = uncovered(&held, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let lines: BTreeSet<String> = compact(missing).iter().map(PolicyRule::describe).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let mut message = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted_list(&user.groups),
        lines.join("\n")
    );
    match &errors[..] {
        [] => {}
        [one] => message.push_str(&format!("; resolution errors: {one}")),
        many => message.push_str(&format!("; resolution errors: [{}]", many.join(", "))),
    }
    Err(message)
}

/// Refuses writes of roles and bindings that grant more than the writer holds, unless the writer may `escalate`
/// the role or `bind` it.
pub struct EscalationCheck {
    rbac: Arc<Rbac>,
    authorizers: Vec<Arc<dyn Authorizer>>,
}

impl EscalationCheck {
    /// `authorizers` are those that decide about requests.
    pub fn new(rbac: Arc<Rbac>, authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self { rbac, authorizers }
    }

    fn may(
        &self,
        attributes: &Attributes,
        verb: &str,
        resource: &str,
        name: &str,
        reader: &dyn Reader,
    ) -> bool {
        let asked = Attributes {
            user: attributes.user.clone(),
            verb: verb.to_owned(),
            api_group: GROUP.to_owned(),
            api_version: "*".to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            namespace: attributes.namespace.clone(),
            is_resource_request: true,
            ..Attributes::default()
        };
        authorize(&self.authorizers, &asked, reader) == Decision::Allow
    }

    fn check_role(
        &self,
        request: &AdmissionRequest,
        role: &Value,
        reader: &dyn Reader,
    ) -> Result<(), String> {
        let attributes = request.attributes;
        if self.may(
            attributes,
            "escalate",
            &attributes.resource,
            &attributes.name,
            reader,
        ) {
            return Ok(());
        }
        let policy = self.rbac.policy(reader);
        let confirm = |rules: &[PolicyRule]| {
            confirm_no_escalation(&policy, &attributes.user, &attributes.namespace, rules)
        };
        confirm(&rules_of(role))?;
        // What an aggregated role will gather is unknown, so setting or changing one takes every right there is.
        if aggregates(role) || request.old.is_some_and(aggregates) {
            confirm(&PolicyRule::everything())
                .map_err(|_| "must have cluster-admin privileges to use the aggregationRule".to_owned())?;
        }
        Ok(())
    }

    fn check_binding(
        &self,
        request: &AdmissionRequest,
        binding: &Value,
        reader: &dyn Reader,
    ) -> Result<(), Status> {
        let attributes = request.attributes;
        let role = role_ref_of(binding);
        let resource = match role.kind.as_str() {
            "ClusterRole" => "clusterroles",
            _ => "roles",
        };
        if self.may(attributes, "bind", resource, &role.name, reader) {
            return Ok(());
        }
        let policy = self.rbac.policy(reader);
        let rules = policy
            .role_rules(&role, &attributes.namespace)
            .map_err(|_| Status::not_found(&GroupResource::new(GROUP, resource), &role.name))?;
        confirm_no_escalation(&policy, &attributes.user, &attributes.namespace, rules)
            .map_err(|why| Status::forbidden(&attributes.group_resource(), binding.name(), why))
    }
}

fn aggregates(role: &Value) -> bool {
    role.at(&["aggregationRule", "clusterRoleSelectors"])
        .and_then(Value::as_array)
        .is_some_and(|selectors| !selectors.is_empty())
}

/// The garbage collector must be able to let go of objects that grant more than it holds.
fn changes_only_what_garbage_collection_changes(new: &Value, old: &Value) -> bool {
    let essence = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for key in [
                "ownerReferences",
                "finalizers",
                "managedFields",
                "resourceVersion",
            ] {
                metadata.remove(key);
            }
        }
        object
    };
    essence(new) == essence(old)
}

impl Admission for EscalationCheck {
    fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let attributes = request.attributes;
        if attributes.api_group != GROUP
            || !attributes.subresource.is_empty()
            || !matches!(request.operation, Operation::Create | Operation::Update)
            || attributes.user.in_group(PRIVILEGED_GROUP)
        {
            return Ok(());
        }
        let Some(object) = request.object.as_deref() else {
            return Ok(());
        };
        if request
            .old
            .is_some_and(|old| changes_only_what_garbage_collection_changes(object, old))
        {
            return Ok(());
        }
        match attributes.resource.as_str() {
            "roles" | "clusterroles" => self
                .check_role(request, object, reader)
                .map_err(|why| Status::forbidden(&attributes.group_resource(), object.name(), why)),
            "rolebindings" | "clusterrolebindings" => self.check_binding(request, object, reader),
            _ => Ok(()),
        }
    }
}
