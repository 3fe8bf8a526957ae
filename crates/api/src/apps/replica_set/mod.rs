//! ReplicaSet. Upstream: `pkg/apis/apps`, `pkg/registry/apps/replicaset`.

mod validation;

use crate::access::{Read, Write};
use crate::apps::template;
use crate::core::pod_spec;
use crate::core::replication_controller::{check_status_update, replica_cells, replicas_field};
use crate::strategy::{Facts, Kind};
use crate::table::{self, AGE, NAME, TableSpec, integer, wide};
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
    prepare_for_create: |set| set.put("status", json!({"replicas": 0})),
    check: validation::check,
    check_update: Some(validation::check_update),
    check_status_update,
    warnings: template::warnings_with_name,
    selectable_fields: replicas_field,
    ..Kind::new(Facts::NAMESPACED)
};

fn default(set: &mut Value) {
    let spec = set.object("spec");
    spec.fill("replicas", 1);
    pod_spec::default_template(spec.object("template"));
}

fn cells(set: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = replica_cells(set, now);
    cells.push(table::label_selector(set.sub("spec").sub("selector")));
    cells
}
