//! Nothing is made in namespaces that do not exist or that end; the system's namespaces stay.
//! Upstream: `k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`.

use super::forbidden;
use crate::plugin::{Admission, AdmissionRequest, Operation, Reader};
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, Status, StatusCause};

/// See the file's head.
pub struct NamespaceLifecycle;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Admission for NamespaceLifecycle {
    fn admit(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let attributes = request.attributes;
        let namespaces = GroupResource::new("", "namespaces");
        if attributes.group_resource() == namespaces {
            if request.operation == Operation::Delete && IMMORTAL.contains(&attributes.name.as_str()) {
                return Err(forbidden(request, "this namespace may not be deleted"));
            }
            return Ok(());
        }
        let namespace = &attributes.namespace;
        if namespace.is_empty() || request.operation == Operation::Delete {
            return Ok(());
        }
        let found = reader
            .get(&namespaces, "", namespace)
            .ok_or_else(|| Status::not_found(&namespaces, namespace))?;
        if request.operation != Operation::Create || found.str_at(&["status", "phase"]) != Some("Terminating")
        {
            return Ok(());
        }
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut status = forbidden(request, why);
        if let Some(details) = &mut status.details {
            details.causes.push(StatusCause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
        }
        Err(status)
    }
}
