//! DaemonSet. Upstream: `pkg/apis/apps`, `pkg/registry/apps/daemonset`.

mod validation;

use crate::access::{Read, Write};
use crate::apps::template;
use crate::core::pod_spec;
use crate::semantic::equal_field;
use crate::strategy::{Facts, Kind};
use crate::table::{self, AGE, NAME, TableSpec, age, integer, text, wide};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Counts the templates; a field in versions before `apps/v1`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            integer("Desired"),
            integer("Current"),
            integer("Ready"),
            integer("Up-to-date"),
            integer("Available"),
            text("Node Selector"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells,
    },
    default,
    prepare_for_create,
    prepare_for_update,
    check: validation::check,
    check_update: Some(validation::check_update),
    check_status_update: validation::check_status_update,
    warnings: template::warnings,
    ..Kind::new(Facts::NAMESPACED)
};

fn default(set: &mut Value) {
    let spec = set.object("spec");
    let strategy = spec.object("updateStrategy");
    strategy.fill_text("type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate" {
        let rolling = strategy.object("rollingUpdate");
        rolling.fill("maxUnavailable", 1);
        rolling.fill("maxSurge", 0);
    }
    spec.fill("revisionHistoryLimit", 10);
    pod_spec::default_template(spec.object("template"));
}

fn prepare_for_create(set: &mut Value) {
    set_template_generation(set, 1);
    set.put(
        "status",
        json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        }),
    );
}

fn prepare_for_update(set: &mut Value, old: &Value) {
    let before = template_generation(old);
    let same = equal_field(set.sub("spec"), old.sub("spec"), "template");
    set_template_generation(set, before + i64::from(!same));
}

fn template_generation(set: &Value) -> i64 {
    let annotation = set.annotation(TEMPLATE_GENERATION);
    annotation.and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn set_template_generation(set: &mut Value, generation: i64) {
    let annotations = set.object("metadata").object("annotations");
    annotations.put(TEMPLATE_GENERATION, generation.to_string());
}

fn cells(set: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (set.sub("spec"), set.sub("status"));
    let count = |key: &str| Value::from(status.int(key).unwrap_or_default());
    let [names, images] = table::containers(spec.sub("template"));
    vec![
        set.name().into(),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        table::labels(spec.sub("template").sub("spec").sub("nodeSelector")),
        age(set, now),
        names,
        images,
        table::label_selector(spec.sub("selector")),
    ]
}
