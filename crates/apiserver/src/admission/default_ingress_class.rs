//! Ingresses that name no class get the default one. Upstream: `plugin/pkg/admission/network/defaultingressclass`.

use super::{created, defaults_by_annotation};
use crate::plugin::{Admission, AdmissionRequest, Reader};
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, Status};
use serde_json::Value;

/// See the file's head.
pub struct DefaultIngressClass;

const GROUP: &str = "networking.k8s.io";

impl Admission for DefaultIngressClass {
    fn admit(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let Some(ingress) = created(request, GROUP, "ingresses") else {
            return Ok(());
        };
        let chosen = ingress.annotation("kubernetes.io/ingress.class").is_some()
            || ingress
                .at(&["spec", "ingressClassName"])
                .is_some_and(|name| !name.is_null());
        if chosen {
            return Ok(());
        }
        let classes = reader.list(&GroupResource::new(GROUP, "ingressclasses"), None);
        let found = defaults_by_annotation(classes, "ingressclass.kubernetes.io/is-default-class");
        if let (Some(class), Some(spec)) = (
            found.first(),
            ingress.get_mut("spec").filter(|spec| spec.is_object()),
        ) {
            spec["ingressClassName"] = Value::from(class.name());
        }
        Ok(())
    }
}
