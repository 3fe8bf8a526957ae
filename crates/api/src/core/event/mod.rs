//! Event. Upstream: `pkg/apis/core`, `pkg/registry/core/event`.

mod validation;

use crate::access::Read;
use crate::strategy::{Facts, Kind};
use crate::table::{Column, NAME, TableSpec, since, text, wide};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            text("Last Seen"),
            text("Type"),
            text("Reason"),
            text("Object"),
            wide("Subobject"),
            wide("Source"),
            text("Message"),
            wide("First Seen"),
            wide("Count"),
            Column { priority: 1, ..NAME },
        ],
        cells,
    },
    check: validation::check,
    selectable_fields,
    ..Kind::new(Facts {
        create_on_update: true,
        ..Facts::NAMESPACED_DATA
    })
};

fn selectable_fields(event: &Value) -> Vec<(&'static str, String)> {
    let involved = event.sub("involvedObject");
    let component = event.text("reportingComponent");
    let source = match event.sub("source").text("component") {
        "" => component,
        source => source,
    };
    vec![
        ("involvedObject.kind", involved.text("kind").to_owned()),
        ("involvedObject.namespace", involved.text("namespace").to_owned()),
        ("involvedObject.name", involved.text("name").to_owned()),
        ("involvedObject.uid", involved.text("uid").to_owned()),
        (
            "involvedObject.apiVersion",
            involved.text("apiVersion").to_owned(),
        ),
        (
            "involvedObject.resourceVersion",
            involved.text("resourceVersion").to_owned(),
        ),
        ("involvedObject.fieldPath", involved.text("fieldPath").to_owned()),
        ("reason", event.text("reason").to_owned()),
        ("reportingComponent", component.to_owned()),
        ("source", source.to_owned()),
        ("type", event.text("type").to_owned()),
    ]
}

fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let ago = |time: &str| since(Some(time), now);
    let first = match event.text("firstTimestamp") {
        "" => ago(event.text("eventTime")),
        time => ago(time),
    };
    let mut last = match event.text("lastTimestamp") {
        "" => first.clone(),
        time => ago(time),
    };
    let mut count = event.int("count").unwrap_or_default().max(1);
    if let Some(series) = event.field("series") {
        last = ago(series.text("lastObservedTime"));
        count = series.int("count").unwrap_or_default();
    }
    let involved = event.sub("involvedObject");
    let mut target = involved.text("kind").to_lowercase();
    if !involved.text("name").is_empty() {
        target = format!("{target}/{}", involved.text("name"));
    }
    vec![
        last.into(),
        event.text("type").into(),
        event.text("reason").into(),
        target.into(),
        involved.text("fieldPath").into(),
        source(event).into(),
        event.text("message").trim().into(),
        first.into(),
        count.into(),
        event.name().into(),
    ]
}

fn source(event: &Value) -> String {
    let first_of = |a: &str, b: &str| if a.is_empty() { b.to_owned() } else { a.to_owned() };
    let source = event.sub("source");
    let component = first_of(source.text("component"), event.text("reportingComponent"));
    let instance = first_of(source.text("host"), event.text("reportingInstance"));
    if instance.is_empty() {
        component
    } else {
        format!("{component}, {instance}")
    }
}
