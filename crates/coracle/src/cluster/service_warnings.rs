//! `Warning` headers for who writes a Service that will not answer: what `coracle_diagnose` knows at that moment.
//!
//! An admission plugin of the binary, since neither the API server nor the diagnosis knows the other. It changes and
//! refuses nothing. Labels are read from the store's index, and only a few Pods are decoded, so that a write into a
//! namespace of many thousand Pods costs no more than a look at their labels.

use coracle_apiserver::{Admission, AdmissionRequest, Operation, Reader};
use coracle_diagnose::{Slips, on_write};
use coracle_meta::{GroupResource, Status};
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::Value;
use std::ops::ControlFlow;
use std::sync::Arc;

/// So many Pods stand for all that a selector finds: they nearly always come from one template.
const PODS: usize = 16;

/// The plugin.
pub struct ServiceWarnings;

impl Admission for ServiceWarnings {
    fn admit(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        if let Some(service) = written(request) {
            request.warnings.extend(warnings(&service, reader));
        }
        Ok(())
    }
}

/// The Service that a request writes, if what counts is new: nobody is told the same at each change of a label.
fn written(request: &AdmissionRequest) -> Option<Service> {
    let attributes = request.attributes;
    let is_service = attributes.api_group.is_empty()
        && attributes.resource == "services"
        && attributes.subresource.is_empty();
    if !is_service || !matches!(request.operation, Operation::Create | Operation::Update) {
        return None;
    }
    let object = request.object.as_deref()?;
    let concern = |object: &Value| {
        ["selector", "ports", "type", "externalName"].map(|field| object["spec"][field].clone())
    };
    if request.old.is_some_and(|old| concern(old) == concern(object)) {
        return None;
    }
    // What does not decode is refused by validation.
    serde_json::from_value(object.clone()).ok()
}

fn warnings(service: &Service, reader: &dyn Reader) -> Vec<String> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let spec = service.spec.as_ref();
    let Some(selector) = spec
        .and_then(|spec| spec.selector.as_ref())
        .filter(|s| !s.is_empty())
    else {
        return on_write(service, Vec::new());
    };
    let pods = GroupResource::new("", "pods");
    let mut found: Vec<String> = Vec::new();
    let mut slips = Slips::of(selector);
    reader.visit_labels(&pods, namespace, &mut |name, labels| {
        let has =
            |(key, value): (&String, &String)| labels.iter().any(|(k, v)| **k == **key && **v == **value);
        if selector.iter().all(has) {
            found.push(name.to_owned());
        } else if found.is_empty() {
            slips.see(labels);
        }
        if found.len() < PODS {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    let pod = |name: &String| -> Option<Arc<Pod>> {
        let pod = serde_json::from_value(reader.get(&pods, namespace, name)?).ok()?;
        Some(Arc::new(pod))
    };
    let mut warnings = on_write(service, found.iter().filter_map(pod).collect());
    if found.is_empty() {
        warnings.extend(slips.warning());
    }
    warnings
}
