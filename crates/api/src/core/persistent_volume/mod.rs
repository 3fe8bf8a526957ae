//! PersistentVolume. Upstream: `pkg/apis/core`, `pkg/registry/core/persistentvolume`.

mod validation;

use crate::access::{Read, Write};
use crate::core::persistent_volume_claim::{access_modes, class, or_unset, phase};
use crate::core::{pod_spec, resource_list};
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text, wide};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

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
