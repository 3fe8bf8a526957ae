//! Pods from the template of a workload. Upstream: `GetPodFromTemplate` in `pkg/controller/controller_utils.go`.

use crate::controller_ref;
use coracle_meta::names;
use coracle_reconcile::Kind;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A pod of this template that belongs to `owner`; the server completes its name.
pub(crate) fn pod<O: Kind>(template: &PodTemplateSpec, owner: &O) -> Pod {
    let meta = owner.metadata();
    let from = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(name_prefix(meta.name.as_deref().unwrap_or_default())),
            namespace: meta.namespace.clone(),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![controller_ref::of(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// `NAME-`, or `NAME` where the dash would not be valid.
pub(crate) fn name_prefix(name: &str) -> String {
    let prefix = format!("{name}-");
    let masked = names::mask_trailing_dash(&prefix);
    if names::is_dns1123_subdomain(&masked).is_empty() {
        prefix
    } else {
        name.to_owned()
    }
}
