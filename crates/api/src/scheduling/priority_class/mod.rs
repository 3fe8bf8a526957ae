//! PriorityClass. Upstream: `pkg/apis/scheduling`, `pkg/registry/scheduling/priorityclass`.

use crate::access::{Read, Write};
use crate::at::At;
use crate::strategy::{Errors, Facts, Kind, set_generation};
use crate::table::{AGE, NAME, TableSpec, age, boolean, integer, text};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, FieldPath};
use serde_json::Value;

/// The highest priority that users may give; above are the system's.
const USER_MAX: i64 = 1_000_000_000;
/// The classes that every cluster has, and their priorities.
const SYSTEM: &[(&str, i64)] = &[
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            integer("Value"),
            boolean("Global-Default"),
            AGE,
            text("PreemptionPolicy"),
        ],
        cells: |class, now| {
            vec![
                class.name().into(),
                class.int("value").unwrap_or_default().into(),
                class.flag("globalDefault").into(),
                age(class, now),
                class.text("preemptionPolicy").into(),
            ]
        },
    },
    default: |class| class.fill("preemptionPolicy", "PreemptLowerPriority"),
    prepare_for_create: |class| set_generation(class, 1),
    check,
    check_update: Some(check_update),
    ..Kind::new(Facts::CLUSTER_DATA)
};

fn check(class: &Value, errors: &mut Errors) {
    let root = At::new(class, FieldPath::default());
    let value = root.int("value").unwrap_or_default();
    if class.name().starts_with("system-") {
        let known = SYSTEM.iter().find(|(name, _)| *name == class.name());
        let reason = match known {
            None => Some(format!("{} is not a known system priority class", class.name())),
            Some((_, expected)) if *expected != value => Some(format!(
                "value of {} PriorityClass must be {expected}",
                class.name()
            )),
            Some(_) if class.flag("globalDefault") => Some(format!(
                "globalDefault of {} PriorityClass must be false",
                class.name()
            )),
            Some(_) => None,
        };
        if let Some(reason) = reason {
            let path = FieldPath::new("metadata").child("name");
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {reason}"
            );
            errors.push(FieldError::forbidden(&path, &detail));
        }
    } else if value > USER_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
        errors.push(root.child("value").forbidden(&detail));
    }
    if root.has("preemptionPolicy") {
        let allowed = ["Never", "PreemptLowerPriority"];
        root.require_one_of("preemptionPolicy", &allowed, errors);
    }
}

fn check_update(class: &Value, old: &Value, errors: &mut Errors) {
    let root = At::new(class, FieldPath::default());
    if root.int("value") != old.int("value") {
        errors.push(root.child("value").forbidden("may not be changed in an update."));
    }
    root.immutable("preemptionPolicy", old, errors);
}
