//! PersistentVolumeClaim. Upstream: `pkg/apis/core`, `pkg/registry/core/persistentvolumeclaim`.

mod validation;

pub(crate) use validation::{validate_access_modes, validate_spec};

use crate::access::{Read, Write};
use crate::at::At;
use crate::core::{pod_spec, resource_list};
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text, wide};
use crate::warnings::fractional_bytes;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Where the class of a claim or volume stood before it had a field.
pub(crate) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("Status"),
            text("Volume"),
            text("Capacity"),
            text("Access Modes"),
            text("StorageClass"),
            text("VolumeAttributesClass"),
            AGE,
            wide("VolumeMode"),
        ],
        cells,
    },
    default,
    prepare_for_create: |claim| claim.put("status", json!({"phase": "Pending"})),
    check: validation::check,
    check_update: Some(validation::check_update),
    warnings: |claim, _| {
        let mut warnings = Vec::new();
        if claim.sub("metadata").sub("annotations").has(CLASS_ANNOTATION) {
            warnings.push(format!(
                "metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
            ));
        }
        warn_of_spec(&At::top(claim, "spec"), &mut warnings);
        warnings
    },
    ..Kind::new(Facts {
        generation: false,
        ..Facts::NAMESPACED
    })
};

fn default(claim: &mut Value) {
    pod_spec::default_persistent_volume_claim_spec(claim.object("spec"));
    // A source and its newer form say the same, unless the newer one names another namespace.
    let spec = claim.object("spec");
    match (
        spec.field("dataSource").cloned(),
        spec.field("dataSourceRef").cloned(),
    ) {
        (Some(source), None) => spec.put("dataSourceRef", source),
        (None, Some(source)) if source.text("namespace").is_empty() => spec.put("dataSource", source),
        _ => {}
    }
    let status = claim.object("status");
    status.fill_text("phase", "Pending");
    if let Some(capacity) = status.existing("capacity") {
        resource_list::default_list(capacity);
    }
}

/// The class of a claim or volume.
pub(crate) fn class(object: &Value) -> &str {
    let annotations = object.sub("metadata").sub("annotations");
    if annotations.has(CLASS_ANNOTATION) {
        return annotations.text(CLASS_ANNOTATION);
    }
    object.sub("spec").text("storageClassName")
}

/// Access modes, abbreviated, each once, in upstream's order.
pub(crate) fn access_modes(modes: &[&str]) -> String {
    let all = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let shown: Vec<&str> = all
        .into_iter()
        .filter(|(mode, _)| modes.contains(mode))
        .map(|(_, short)| short)
        .collect();
    shown.join(",")
}

/// The text, or `<unset>` when the field is absent.
pub(crate) fn or_unset(holder: &Value, key: &str) -> Value {
    if holder.has(key) {
        holder.text(key)
    } else {
        "<unset>"
    }
    .into()
}

/// The phase, as long as the object is not on its way out.
pub(crate) fn phase(object: &Value) -> Value {
    if object.is_terminating() {
        "Terminating".into()
    } else {
        object.sub("status").text("phase").into()
    }
}

/// About the spec of a claim or of a template of claims.
pub(crate) fn warn_of_spec(spec: &At<'_>, warnings: &mut Vec<String>) {
    let resources = spec.child("resources");
    for list in ["requests", "limits"] {
        fractional_bytes(&resources.child(list), "storage", warnings);
    }
}

fn cells(claim: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (claim.sub("spec"), claim.sub("status"));
    let volume = spec.text("volumeName");
    let (capacity, modes) = if volume.is_empty() {
        (String::new(), String::new())
    } else {
        (
            resource_list::text_of(status.sub("capacity"), "storage"),
            access_modes(&status.texts("accessModes")),
        )
    };
    vec![
        claim.name().into(),
        phase(claim),
        volume.into(),
        capacity.into(),
        modes.into(),
        class(claim).into(),
        or_unset(spec, "volumeAttributesClassName"),
        age(claim, now),
        or_unset(spec, "volumeMode"),
    ]
}
