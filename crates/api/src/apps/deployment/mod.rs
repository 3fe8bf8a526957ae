//! Deployment. Upstream: `pkg/apis/apps`, `pkg/registry/apps/deployment`.

mod validation;

use crate::access::{Read, Write};
use crate::apps::template;
use crate::core::pod_spec;
use crate::semantic::equal_field;
use crate::strategy::{Facts, Kind, copy_field, set_generation};
use crate::table::{self, AGE, NAME, TableSpec, age, text, wide};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("Ready"),
            text("Up-to-date"),
            text("Available"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells,
    },
    default,
    prepare_for_create: |deployment| deployment.put("status", json!({})),
    prepare_for_update,
    prepare_for_status_update: |deployment, old| {
        copy_field(deployment.object("metadata"), old.sub("metadata"), "labels");
    },
    check: validation::check,
    check_update: Some(validation::check_update),
    check_status_update: validation::check_status_update,
    warnings: template::warnings_with_name,
    ..Kind::new(Facts::NAMESPACED)
};

fn default(deployment: &mut Value) {
    let spec = deployment.object("spec");
    spec.fill("replicas", 1);
    let strategy = spec.object("strategy");
    strategy.fill_text("type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate" {
        let rolling = strategy.object("rollingUpdate");
        rolling.fill("maxUnavailable", "25%");
        rolling.fill("maxSurge", "25%");
    }
    spec.fill("revisionHistoryLimit", 10);
    spec.fill("progressDeadlineSeconds", 600);
    pod_spec::default_template(spec.object("template"));
}

/// Annotations are copied to the ReplicaSets, so their change counts as one of the spec.
fn prepare_for_update(deployment: &mut Value, old: &Value) {
    let same = equal_field(deployment.sub("metadata"), old.sub("metadata"), "annotations");
    if !same && deployment.generation() == old.generation() {
        set_generation(deployment, old.generation() + 1);
    }
}

fn cells(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (deployment.sub("spec"), deployment.sub("status"));
    let count = |key: &str| status.int(key).unwrap_or_default();
    let [names, images] = table::containers(spec.sub("template"));
    let replicas = spec.int("replicas").unwrap_or_default();
    vec![
        deployment.name().into(),
        format!("{}/{replicas}", count("readyReplicas")).into(),
        count("updatedReplicas").into(),
        count("availableReplicas").into(),
        age(deployment, now),
        names,
        images,
        table::label_selector(spec.sub("selector")),
    ]
}
