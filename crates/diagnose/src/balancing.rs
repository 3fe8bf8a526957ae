//! Whether the packet rules know how a Service asks to be balanced.

use crate::diagnosis::{Code, Verdict};
use crate::near::near;
use crate::subject::kubectl;
use coracle_meta::balancing::{BALANCING, BALANCINGS};
use k8s_openapi::api::core::v1::Service;

/// What to tell of an annotation whose value nobody knows; none without one, and where nothing is balanced.
pub fn unknown_balancing(service: &Service) -> Option<Verdict> {
    let asked = service.metadata.annotations.as_ref()?.get(BALANCING)?;
    let spec = service.spec.as_ref()?;
    let has_no_address =
        spec.cluster_ip.as_deref() == Some("None") || spec.type_.as_deref() == Some("ExternalName");
    if has_no_address || BALANCINGS.contains(&asked.as_str()) {
        return None;
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&service.metadata.namespace), text(&service.metadata.name));
    let fix = match near(asked, BALANCINGS).first() {
        Some(meant) => kubectl(
            &namespace,
            &format!("annotate service {name} --overwrite {BALANCING}={meant}"),
        ),
        None => format!("let {BALANCING} be one of {}", BALANCINGS.join(", ")),
    };
    Some(Verdict::note(
        Code::BalancingUnknown,
        format!("annotation {BALANCING}: {asked:?} is not known, so endpoints are chosen at random"),
        fix,
    ))
}
