//! PriorityLevelConfiguration. Upstream: `pkg/registry/flowcontrol/prioritylevelconfiguration`.

use crate::access::{Read, Write};
use crate::at::At;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("Type"),
            text("NominalConcurrencyShares"),
            text("Queues"),
            text("HandSize"),
            text("QueueLengthLimit"),
            AGE,
        ],
        cells,
    },
    default,
    prepare_for_create: |level| level.put("status", json!({})),
    check: |level, errors| {
        let spec = At::top(level, "spec");
        spec.child("type").one_of(&["Exempt", "Limited"], errors);
        let limited = spec.child("limited");
        if spec.text("type") == "Limited" && limited.is_null() {
            errors.push(limited.required("must not be empty when type is Limited"));
        } else if spec.text("type") == "Exempt" && !limited.is_null() {
            errors.push(limited.forbidden("must be nil if the type is not Limited"));
        }
    },
    ..Kind::new(Facts::CLUSTER)
};

fn default(level: &mut Value) {
    let spec = level.object("spec");
    for (key, shares) in [("exempt", 0), ("limited", 30)] {
        let Some(part) = spec.existing(key) else { continue };
        part.fill("nominalConcurrencyShares", shares);
        part.fill("lendablePercent", 0);
        if let Some(queuing) = part
            .existing("limitResponse")
            .and_then(|response| response.existing("queuing"))
        {
            queuing.fill_zero("handSize", 8);
            queuing.fill_zero("queues", 64);
            queuing.fill_zero("queueLengthLimit", 50);
        }
    }
}

fn cells(level: &Value, now: Timestamp) -> Vec<Value> {
    let spec = level.sub("spec");
    let limited = spec.sub("limited");
    let queuing = limited.sub("limitResponse").sub("queuing");
    let number = |holder: &Value, key: &str| match holder.int(key) {
        Some(number) => Value::from(number),
        None => "<none>".into(),
    };
    vec![
        level.name().into(),
        spec.text("type").into(),
        number(limited, "nominalConcurrencyShares"),
        number(queuing, "queues"),
        number(queuing, "handSize"),
        number(queuing, "queueLengthLimit"),
        age(level, now),
    ]
}
