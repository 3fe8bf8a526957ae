//! FlowSchema. Upstream: `pkg/registry/flowcontrol/flowschema`.

use crate::access::{Read, Write};
use crate::at::At;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, or_none, text};
use coracle_meta::object::ObjectExt;
use serde_json::json;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("PriorityLevel"),
            text("MatchingPrecedence"),
            text("DistinguisherMethod"),
            AGE,
            text("MissingPL"),
        ],
        cells: |schema, now| {
            let spec = schema.sub("spec");
            let conditions = schema.sub("status").list("conditions");
            let dangling = conditions
                .iter()
                .find(|condition| condition.text("type") == "Dangling");
            vec![
                schema.name().into(),
                spec.sub("priorityLevelConfiguration").text("name").into(),
                spec.int("matchingPrecedence").unwrap_or_default().into(),
                or_none(spec.sub("distinguisherMethod").text("type")),
                age(schema, now),
                dangling.map_or("?", |condition| condition.text("status")).into(),
            ]
        },
    },
    default: |schema| schema.object("spec").fill_zero("matchingPrecedence", 1000),
    prepare_for_create: |schema| schema.put("status", json!({})),
    check: |schema, errors| {
        let spec = At::top(schema, "spec");
        let precedence = spec.child("matchingPrecedence");
        if precedence.as_i64().is_some_and(|number| number <= 0) {
            errors.push(precedence.invalid("must be a positive value"));
        }
        if precedence.as_i64().is_some_and(|number| number > 10_000) {
            errors.push(precedence.invalid("must not be greater than 10000"));
        }
        spec.child("priorityLevelConfiguration").require("name", errors);
    },
    ..Kind::new(Facts::CLUSTER)
};
