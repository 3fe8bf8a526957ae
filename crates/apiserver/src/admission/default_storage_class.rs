//! Claims that name no storage class get the default one.
//! Upstream: `plugin/pkg/admission/storage/storageclass/setdefault`.

use super::{created, defaults_by_annotation};
use crate::plugin::{Admission, AdmissionRequest, Reader};
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, Status};
use serde_json::Value;

/// See the file's head.
pub struct DefaultStorageClass;

impl Admission for DefaultStorageClass {
    fn admit(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(claim) = created(request, "", "persistentvolumeclaims") else {
            return Ok(());
        };
        // The empty name is a choice: no class.
        let chosen = claim
            .annotation("volume.beta.kubernetes.io/storage-class")
            .is_some()
            || claim
                .at(&["spec", "storageClassName"])
                .is_some_and(|name| !name.is_null());
        if chosen {
            return Ok(());
        }
        let classes = reader.list(&GroupResource::new("storage.k8s.io", "storageclasses"), None);
        let found = defaults_by_annotation(classes, "storageclass.kubernetes.io/is-default-class");
        if let (Some(class), Some(spec)) = (
            found.first(),
            claim.get_mut("spec").filter(|spec| spec.is_object()),
        ) {
            spec["storageClassName"] = Value::from(class.name());
        }
        Ok(())
    }
}
