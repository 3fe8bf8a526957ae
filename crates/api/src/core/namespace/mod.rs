//! Namespace. Upstream: `pkg/apis/core`, `pkg/registry/core/namespace`.

use crate::access::{Read, Write};
use crate::strategy::{Facts, Kind, NameRule, copy_field};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::object::ObjectExt;
use serde_json::{Value, json};

/// The finalizer in `spec.finalizers` that waits for a namespace's content to be gone.
const FINALIZER: &str = "kubernetes";

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Status"), AGE],
        cells: |namespace, now| {
            let phase = namespace.sub("status").text("phase");
            vec![namespace.name().into(), phase.into(), age(namespace, now)]
        },
    },
    default,
    prepare_for_create,
    // The finalizers go through their own subresource.
    prepare_for_update: |namespace, old| {
        copy_field(namespace.object("spec"), old.sub("spec"), "finalizers");
    },
    prepare_for_subresource_update: |subresource, namespace, old| {
        if subresource == "finalize" {
            copy_field(namespace, old, "status");
        }
        subresource == "finalize"
    },
    selectable_fields: |namespace| {
        vec![
            ("status.phase", namespace.sub("status").text("phase").to_owned()),
            // An old mistake that clients rely on.
            ("name", namespace.name().to_owned()),
        ]
    },
    ..Kind::new(Facts {
        name: NameRule::Label,
        generation: false,
        ..Facts::CLUSTER
    })
};

fn default(namespace: &mut Value) {
    let name = namespace.name().to_owned();
    if !name.is_empty() {
        let labels = namespace.object("metadata").object("labels");
        labels.put("kubernetes.io/metadata.name", name);
    }
    namespace.object("status").fill_text("phase", "Active");
}

fn prepare_for_create(namespace: &mut Value) {
    // A generated name was not known yet when defaults were set.
    default(namespace);
    namespace.put("status", json!({"phase": "Active"}));
    let spec = namespace.object("spec");
    let mut finalizers = spec.list("finalizers").to_vec();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.into());
        spec.put("finalizers", finalizers);
    }
}
