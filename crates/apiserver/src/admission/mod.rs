//! Checks and completions of objects on their way into the store, one file a plugin.
//! Upstream: `plugin/pkg/admission`, `pkg/kubeapiserver/options/plugins.go`.

pub mod default_ingress_class;
pub mod default_storage_class;
pub mod default_toleration_seconds;
pub mod limit_ranger;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod owner_references_permission_enforcement;
pub mod priority;
pub mod service_account;
pub mod taint_nodes_by_condition;

pub use default_ingress_class::DefaultIngressClass;
pub use default_storage_class::DefaultStorageClass;
pub use default_toleration_seconds::DefaultTolerationSeconds;
pub use limit_ranger::LimitRanger;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use node_restriction::NodeRestriction;
pub use owner_references_permission_enforcement::OwnerReferencesPermissionEnforcement;
pub use priority::Priority;
pub use service_account::ServiceAccount;
pub use taint_nodes_by_condition::TaintNodesByCondition;

use crate::authz::{EscalationCheck, Rbac};
use crate::plugin::{Admission, AdmissionRequest, Authorizer, Operation};
use coracle_meta::Status;
use coracle_meta::object::ObjectExt;
use serde_json::Value;
use std::fmt::Display;
use std::sync::Arc;

/// The plugins that are on by default, in upstream's order; allocators come after them.
pub fn default_plugins(authorizers: &[Arc<dyn Authorizer>], rbac: &Arc<Rbac>) -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(NamespaceLifecycle),
        Arc::new(LimitRanger),
        Arc::new(ServiceAccount),
        Arc::new(NodeRestriction),
        Arc::new(TaintNodesByCondition),
        Arc::new(Priority),
        Arc::new(DefaultTolerationSeconds),
        Arc::new(DefaultStorageClass),
        Arc::new(DefaultIngressClass),
        Arc::new(EscalationCheck::new(rbac.clone(), authorizers.to_vec())),
    ]
}

/// 403 about the object of the request.
fn forbidden(request: &AdmissionRequest, why: impl Display) -> Status {
    let named = request.object.as_deref().or(request.old).map(ObjectExt::name);
    let name = named
        .filter(|name| !name.is_empty())
        .unwrap_or(&request.attributes.name);
    Status::forbidden(&request.attributes.group_resource(), name, why)
}

/// Whether the request is about whole objects of this resource.
fn is_about(request: &AdmissionRequest, group: &str, resource: &str) -> bool {
    let attributes = request.attributes;
    attributes.api_group == group && attributes.resource == resource && attributes.subresource.is_empty()
}

/// The object of a create of this resource.
fn created<'a>(request: &'a mut AdmissionRequest, group: &str, resource: &str) -> Option<&'a mut Value> {
    if request.operation == Operation::Create && is_about(request, group, resource) {
        request.object.as_deref_mut()
    } else {
        None
    }
}

/// The items of the list at a path; none if there is no list.
fn items<'a>(object: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.at(path).and_then(Value::as_array).into_iter().flatten()
}

/// The objects that are marked as their kind's default by an annotation, the one to use first: the newest, then by
/// name.
fn defaults_by_annotation(mut all: Vec<Value>, annotation: &str) -> Vec<Value> {
    all.retain(|object| object.annotation(annotation) == Some("true"));
    let created = |object: &Value| {
        object
            .str_at(&["metadata", "creationTimestamp"])
            .unwrap_or_default()
            .to_owned()
    };
    all.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| a.name().cmp(b.name())));
    all
}

#[cfg(test)]
mod tests;
