//! `events.k8s.io/v1` and core `v1` Events: the same object with other names.
//! Upstream: `pkg/apis/events/v1/conversion.go`.

use super::rename;
use serde_json::Value;

/// `(events.k8s.io, core)`.
const NAMES: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

pub fn to_core(object: Value) -> Value {
    renamed(object, |(new, core)| (new, core))
}

pub fn from_core(object: Value) -> Value {
    renamed(object, |(new, core)| (core, new))
}

fn renamed(
    mut object: Value,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    if let Some(map) = object.as_object_mut() {
        for (from, to) in NAMES.iter().copied().map(direction) {
            rename(map, from, to);
        }
    }
    object
}
