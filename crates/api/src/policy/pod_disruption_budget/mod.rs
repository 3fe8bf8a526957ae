//! PodDisruptionBudget. Upstream: `pkg/apis/policy`, `pkg/registry/policy/poddisruptionbudget`.

use crate::access::{Read, Write};
use crate::at::At;
use crate::strategy::{Errors, Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, integer, text};
use crate::{int_or_percent, label_selector};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("Min Available"),
            text("Max Unavailable"),
            integer("Allowed Disruptions"),
            AGE,
        ],
        cells,
    },
    prepare_for_create: |budget| {
        budget.put(
            "status",
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
        );
    },
    check,
    check_status_update: |budget, _, errors| {
        let counts = [
            "disruptionsAllowed",
            "currentHealthy",
            "desiredHealthy",
            "expectedPods",
        ];
        At::top(budget, "status").none_negative(&counts, errors);
    },
    ..Kind::new(Facts {
        unconditional_update: false,
        ..Facts::NAMESPACED
    })
};

fn check(budget: &Value, errors: &mut Errors) {
    let spec = At::top(budget, "spec");
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set"));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        int_or_percent::validate(&spec.child(key), errors);
        int_or_percent::at_most_all(&spec.child(key), errors);
    }
    label_selector::validate(&spec.child("selector"), errors);
    if let Some(policy) = spec.present("unhealthyPodEvictionPolicy") {
        policy.one_of(&["AlwaysAllow", "IfHealthyBudget"], errors);
    }
}

fn cells(budget: &Value, now: Timestamp) -> Vec<Value> {
    let spec = budget.sub("spec");
    let share = |key: &str| Value::from(spec.field(key).map_or("N/A".to_owned(), int_or_percent::text));
    vec![
        budget.name().into(),
        share("minAvailable"),
        share("maxUnavailable"),
        budget
            .sub("status")
            .int("disruptionsAllowed")
            .unwrap_or_default()
            .into(),
        age(budget, now),
    ]
}
