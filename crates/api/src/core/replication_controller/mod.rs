//! ReplicationController. Upstream: `pkg/apis/core`, `pkg/registry/core/replicationcontroller`.

mod validation;

pub(crate) use validation::check_status_update;

use crate::access::{Read, Write};
use crate::apps::template;
use crate::core::pod_spec;
use crate::strategy::{Facts, Kind};
use crate::table::{self, AGE, NAME, TableSpec, age, integer, wide};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            integer("Desired"),
            integer("Current"),
            integer("Ready"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells,
    },
    default,
    prepare_for_create: |controller| controller.put("status", json!({"replicas": 0})),
    check: validation::check,
    check_status_update,
    warnings: template::warnings_with_name,
    selectable_fields: replicas_field,
    ..Kind::new(Facts::NAMESPACED)
};

/// Selector and labels that are not given are those of the template.
fn default(controller: &mut Value) {
    let spec = controller.object("spec");
    spec.fill("replicas", 1);
    spec.fill("minReadySeconds", 0);
    let Some(template) = spec.existing("template") else {
        return;
    };
    pod_spec::default_template(template);
    let Some(labels) = template.sub("metadata").field("labels").cloned() else {
        return;
    };
    if spec.size("selector") == 0 {
        spec.put("selector", labels.clone());
    }
    let metadata = controller.object("metadata");
    if metadata.size("labels") == 0 {
        metadata.put("labels", labels);
    }
}

/// The field that ReplicaSets and ReplicationControllers can be selected by.
pub(crate) fn replicas_field(object: &Value) -> Vec<(&'static str, String)> {
    let replicas = object.sub("status").int("replicas").unwrap_or_default();
    vec![("status.replicas", replicas.to_string())]
}

/// Name, wanted, present and ready replicas, age, containers and images: ReplicaSets have the same.
pub(crate) fn replica_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.sub("spec"), object.sub("status"));
    let [names, images] = table::containers(spec.sub("template"));
    vec![
        object.name().into(),
        spec.int("replicas").unwrap_or_default().into(),
        status.int("replicas").unwrap_or_default().into(),
        status.int("readyReplicas").unwrap_or_default().into(),
        age(object, now),
        names,
        images,
    ]
}

fn cells(controller: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = replica_cells(controller, now);
    cells.push(table::labels(controller.sub("spec").sub("selector")));
    cells
}
