//! Who changes the owners of an object must be allowed to delete it, and who blocks the deletion of an owner must be
//! allowed to set that owner's finalizers. Off by default, as upstream.
//! Upstream: `plugin/pkg/admission/gc`.

use super::{forbidden, items};
use crate::authz::authorize;
use crate::plugin::{Admission, AdmissionRequest, Authorizer, Decision, Operation, Reader};
use crate::request::Attributes;
use coracle_api::resources;
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupVersionKind, Status};
use serde_json::Value;
use std::sync::Arc;

/// See the file's head.
pub struct OwnerReferencesPermissionEnforcement {
    authorizers: Vec<Arc<dyn Authorizer>>,
}

impl OwnerReferencesPermissionEnforcement {
    /// `authorizers` are those that decide about requests.
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self { authorizers }
    }

    fn may_delete(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let object = request.object.as_deref().unwrap_or(&Value::Null);
        let asked = Attributes {
            verb: "delete".to_owned(),
            subresource: String::new(),
            name: object.name().to_owned(),
            ..request.attributes.clone()
        };
        match authorize(&self.authorizers, &asked, reader) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                let why = "cannot set an ownerRef on a resource you can't delete";
                Err(forbidden(request, format!("{why}: {reason}, <nil>")))
            }
        }
    }

    fn may_block(
        &self,
        request: &AdmissionRequest,
        owner: &Value,
        reader: &dyn Reader,
    ) -> Result<(), Status> {
        let text = |key: &str| owner.str_at(&[key]).unwrap_or_default();
        let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
        let gvk = GroupVersionKind::from_api_version(text("apiVersion"), text("kind"));
        let Some(resource) = resources::by_gvk(&gvk) else {
            let why = format!(
                "{}: no matches for kind {:?}",
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion",
                gvk.kind
            );
            return Err(forbidden(request, why));
        };
        let asked = Attributes {
            user: request.attributes.user.clone(),
            verb: "update".to_owned(),
            api_group: resource.group.to_owned(),
            api_version: resource.version.to_owned(),
            resource: resource.plural.to_owned(),
            subresource: "finalizers".to_owned(),
            name: text("name").to_owned(),
            namespace: if resource.namespaced {
                request.attributes.namespace.clone()
            } else {
                String::new()
            },
            is_resource_request: true,
            ..Attributes::default()
        };
        match authorize(&self.authorizers, &asked, reader) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                Err(forbidden(request, format!("{why}: {reason}, <nil>")))
            }
        }
    }
}

fn owners(object: &Value) -> Vec<&Value> {
    items(object, &["metadata", "ownerReferences"]).collect()
}

fn blocking(object: &Value) -> Vec<&Value> {
    let mut all = owners(object);
    all.retain(|owner| owner["blockOwnerDeletion"] == true);
    all
}

impl Admission for OwnerReferencesPermissionEnforcement {
    fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let object = match (request.operation, request.object.as_deref()) {
            (Operation::Create | Operation::Update, Some(object)) => object,
            _ => return Ok(()),
        };
        // The status of a pod is the node's, which never changes its owners.
        let old = request.old.unwrap_or(&Value::Null);
        if owners(object) == owners(old) {
            return Ok(());
        }
        // Whoever may create an object may say who owns it.
        if request.operation == Operation::Update {
            self.may_delete(request, reader)?;
        }
        let before = blocking(old);
        let added = blocking(object).into_iter().filter(|owner| {
            let same_uid = |b: &&Value| b["uid"] == owner["uid"];
            !before.iter().any(same_uid)
        });
        for owner in added {
            self.may_block(request, owner, reader)?;
        }
        Ok(())
    }
}
