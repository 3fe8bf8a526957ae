//! The kinds of the group `resource.k8s.io`: their tables. Their rules are upstream's schema alone.
//! Upstream: `pkg/registry/resource`.

use crate::access::Read;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, NAME_AGE, TableSpec, age, since, text};
use coracle_meta::object::ObjectExt;

pub(crate) static DEVICE_CLASS: Kind = Kind {
    table: &NAME_AGE,
    ..Kind::new(Facts {
        status: false,
        ..Facts::CLUSTER
    })
};

pub(crate) static RESOURCE_CLAIM: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("State"), AGE],
        cells: |claim, now| {
            let status = claim.sub("status");
            let mut states = Vec::new();
            if claim.is_terminating() {
                states.push("deleted");
            }
            if status.has("allocation") {
                states.push("allocated");
                if !status.list("reservedFor").is_empty() {
                    states.push("reserved");
                }
            } else if !claim.is_terminating() {
                states.push("pending");
            }
            vec![claim.name().into(), states.join(",").into(), age(claim, now)]
        },
    },
    ..Kind::new(Facts {
        generation: false,
        ..Facts::NAMESPACED
    })
};

pub(crate) static RESOURCE_CLAIM_TEMPLATE: Kind = Kind {
    table: &NAME_AGE,
    ..Kind::new(Facts::NAMESPACED_DATA)
};

pub(crate) static RESOURCE_SLICE: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Node"), text("Driver"), text("Pool"), AGE],
        cells: |slice, now| {
            let spec = slice.sub("spec");
            vec![
                slice.name().into(),
                spec.text("nodeName").into(),
                spec.text("driver").into(),
                spec.sub("pool").text("name").into(),
                age(slice, now),
            ]
        },
    },
    warnings: |slice, _| {
        let driver = slice.sub("spec").text("driver");
        if driver == driver.to_lowercase() {
            return Vec::new();
        }
        vec![format!(
            "spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters"
        )]
    },
    selectable_fields: |slice| {
        let spec = slice.sub("spec");
        vec![
            ("spec.nodeName", spec.text("nodeName").to_owned()),
            ("spec.driver", spec.text("driver").to_owned()),
        ]
    },
    ..Kind::new(Facts {
        status: false,
        ..Facts::CLUSTER
    })
};

pub(crate) static DEVICE_TAINT_RULE: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("Key"),
            text("Value"),
            text("Effect"),
            text("TimeAdded"),
            AGE,
        ],
        cells: |rule, now| {
            let taint = rule.sub("spec").sub("taint");
            let added = match taint.text("timeAdded") {
                "" => String::new(),
                time => since(Some(time), now),
            };
            vec![
                rule.name().into(),
                taint.text("key").into(),
                taint.text("value").into(),
                taint.text("effect").into(),
                added.into(),
                age(rule, now),
            ]
        },
    },
    ..Kind::new(Facts::CLUSTER)
};
