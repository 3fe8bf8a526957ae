//! PersistentVolume. Upstream: `pkg/apis/core`, `pkg/registry/core/persistentvolume`.

mod validation;

use crate::access::{Read, Write};
use crate::at::At;
use crate::core::persistent_volume_claim::{CLASS_ANNOTATION, access_modes, class, or_unset, phase};
use crate::core::{pod_spec, resource_list};
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text, wide};
use crate::warnings::node_selector_term;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Sources whose drivers have left Kubernetes: the field, how upstream names it, what it says.
const REMOVED_SOURCES: [(&str, &str, &str); 6] = [
    (
        "cephfs",
        "cephfs",
        "deprecated in v1.28, non-functional in v1.31+",
    ),
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "scaleIO",
        "scaleIO",
        "deprecated in v1.16, non-functional in v1.22+",
    ),
    (
        "storageos",
        "storageOS",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "glusterfs",
        "glusterfs",
        "deprecated in v1.25, non-functional in v1.26+",
    ),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const DEPRECATED_ANNOTATIONS: [(&str, &str); 2] = [
    (
        CLASS_ANNOTATION,
        r#"deprecated since v1.8; use "storageClassName" attribute instead"#,
    ),
    (
        "volume.beta.kubernetes.io/mount-options",
        r#"deprecated since v1.31; use "mountOptions" attribute instead"#,
    ),
];

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("Capacity"),
            text("Access Modes"),
            text("Reclaim Policy"),
            text("Status"),
            text("Claim"),
            text("StorageClass"),
            text("VolumeAttributesClass"),
            text("Reason"),
            AGE,
            wide("VolumeMode"),
        ],
        cells,
    },
    default,
    prepare_for_create: |volume| volume.put("status", json!({"phase": "Pending"})),
    check: validation::check,
    check_update: Some(validation::check_update),
    warnings,
    ..Kind::new(Facts {
        generation: false,
        ..Facts::CLUSTER
    })
};

fn default(volume: &mut Value) {
    volume.object("status").fill_text("phase", "Pending");
    let spec = volume.object("spec");
    spec.fill_text("persistentVolumeReclaimPolicy", "Retain");
    spec.fill("volumeMode", "Filesystem");
    if let Some(capacity) = spec.existing("capacity") {
        resource_list::default_list(capacity);
    }
    if let Some(host_path) = spec.existing("hostPath") {
        host_path.fill("type", "");
    }
    pod_spec::default_network_volume(spec);
}

fn warnings(volume: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let spec = At::top(volume, "spec");
    for (key, message) in DEPRECATED_ANNOTATIONS {
        if volume.sub("metadata").sub("annotations").has(key) {
            warnings.push(format!("metadata.annotations[{key}]: {message}"));
        }
    }
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        warnings.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
             approach is to use dynamic provisioning."
                .to_owned(),
        );
    }
    for term in spec
        .child("nodeAffinity")
        .child("required")
        .each("nodeSelectorTerms")
    {
        node_selector_term(&term, &mut warnings);
    }
    for (field, name, message) in REMOVED_SOURCES {
        if spec.has(field) {
            warnings.push(format!("spec.{name}: {message}"));
        }
    }
    warnings
}

fn cells(volume: &Value, now: Timestamp) -> Vec<Value> {
    let spec = volume.sub("spec");
    let claim = spec.field("claimRef").map_or_else(String::new, |claim| {
        format!("{}/{}", claim.text("namespace"), claim.text("name"))
    });
    vec![
        volume.name().into(),
        resource_list::text_of(spec.sub("capacity"), "storage").into(),
        access_modes(&spec.texts("accessModes")).into(),
        spec.text("persistentVolumeReclaimPolicy").into(),
        phase(volume),
        claim.into(),
        class(volume).into(),
        or_unset(spec, "volumeAttributesClassName"),
        volume.sub("status").text("reason").into(),
        age(volume, now),
        or_unset(spec, "volumeMode"),
    ]
}
