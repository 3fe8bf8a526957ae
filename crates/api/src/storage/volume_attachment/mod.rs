//! VolumeAttachment. Upstream: `pkg/apis/storage`, `pkg/registry/storage/volumeattachment`.

use crate::access::{Read, Write};
use crate::at::{At, subdomain};
use crate::core::pod_spec;
use crate::strategy::{Errors, Facts, Kind};
use crate::table::{AGE, Column, NAME, TableSpec, age, boolean, text};
use coracle_meta::object::ObjectExt;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            Column {
                format: "name",
                ..text("Attacher")
            },
            text("PV"),
            text("Node"),
            boolean("Attached"),
            AGE,
        ],
        cells: |attachment, now| {
            let spec = attachment.sub("spec");
            vec![
                attachment.name().into(),
                spec.text("attacher").into(),
                spec.sub("source").text("persistentVolumeName").into(),
                spec.text("nodeName").into(),
                attachment.sub("status").flag("attached").into(),
                age(attachment, now),
            ]
        },
    },
    prepare_for_create: |attachment| attachment.put("status", json!({"attached": false})),
    check,
    check_update: Some(|attachment, old, errors| {
        let root = At::new(attachment, coracle_meta::FieldPath::default());
        root.immutable("spec", old, errors);
    }),
    ..Kind::new(Facts {
        generation: false,
        unconditional_update: false,
        ..Facts::CLUSTER
    })
};

fn check(attachment: &Value, errors: &mut Errors) {
    let spec = At::top(attachment, "spec");
    pod_spec::validate_csi_driver(&spec.child("attacher"), errors);
    spec.child("nodeName").form(subdomain, errors);
    let source = spec.child("source");
    let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (
        source.has("inlineVolumeSpec"),
        source.present("persistentVolumeName"),
    ) {
        (false, None) => errors.push(source.required(detail)),
        (true, Some(_)) => errors.push(source.forbidden(detail)),
        (false, Some(name)) if name.as_text().is_empty() => {
            errors.push(name.required("must specify non empty persistentVolumeName"));
        }
        (false, Some(name)) => name.form(subdomain, errors),
        (true, None) => {}
    }
}
