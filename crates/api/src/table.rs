//! Tables: what `kubectl get` shows. A kind names its columns and computes the cells of one object.
//! Upstream: `pkg/printers/internalversion/printers.go`, `k8s.io/apimachinery/pkg/api/meta/table`.

use crate::access::Read;
use coracle_meta::object::ObjectExt;
use coracle_meta::{Selector, timestamp};
use jiff::Timestamp;
use serde_json::Value;

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The heading, as upstream writes it (`Cluster-IP`); kubectl shows it in capitals.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date` …
    pub data_type: &'static str,
    /// OpenAPI format; `name` marks the name column.
    pub format: &'static str,
    /// 0 is always shown, 1 only by `-o wide`.
    pub priority: i32,
}

/// The table of a kind.
#[derive(Debug, Clone, Copy)]
pub struct TableSpec {
    /// The columns, in order.
    pub columns: &'static [Column],
    /// The cells of an object, as many as columns; ages are relative to the timestamp.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// A text column that is always shown.
pub(crate) const fn text(name: &'static str) -> Column {
    Column {
        name,
        data_type: "string",
        format: "",
        priority: 0,
    }
}

/// A text column of the wide table.
pub(crate) const fn wide(name: &'static str) -> Column {
    Column {
        priority: 1,
        ..text(name)
    }
}

/// A number that is always shown.
pub(crate) const fn integer(name: &'static str) -> Column {
    Column {
        data_type: "integer",
        ..text(name)
    }
}

/// A yes or no that is always shown.
pub(crate) const fn boolean(name: &'static str) -> Column {
    Column {
        data_type: "boolean",
        ..text(name)
    }
}

/// The first column of every table.
pub(crate) const NAME: Column = Column {
    format: "name",
    ..text("Name")
};

/// The age column.
pub(crate) const AGE: Column = text("Age");

/// What upstream shows for kinds without columns of their own.
pub static PLAIN: TableSpec = TableSpec {
    columns: &[
        NAME,
        Column {
            data_type: "date",
            ..text("Created At")
        },
    ],
    cells: |object, _| vec![object.name().into(), creation(object).unwrap_or_default().into()],
};

/// Name and age.
pub(crate) static NAME_AGE: TableSpec = TableSpec {
    columns: &[NAME, AGE],
    cells: |object, now| vec![object.name().into(), age(object, now)],
};

/// The table of `…/scale`, whatever is scaled.
pub static SCALE: TableSpec = TableSpec {
    columns: &[NAME, integer("Desired"), integer("Available"), AGE],
    cells: |scale, now| {
        vec![
            scale.name().into(),
            scale.sub("spec").int("replicas").unwrap_or_default().into(),
            scale.sub("status").int("replicas").unwrap_or_default().into(),
            age(scale, now),
        ]
    },
};

fn creation(object: &Value) -> Option<&str> {
    object.str_at(&["metadata", "creationTimestamp"])
}

/// The age cell of an object.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(creation(object), now).into()
}

/// How long ago an RFC 3339 time was, in words of at most two units; `<unknown>` without one.
pub fn since(time: Option<&str>, now: Timestamp) -> String {
    match time.and_then(timestamp::parse) {
        Some(time) => timestamp::human_duration(now.duration_since(time).as_secs()),
        None => "<unknown>".to_owned(),
    }
}

/// The text, or `<none>`.
pub(crate) fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>" } else { text }.into()
}

/// A map of labels as `a=b,c=d`, or `<none>`.
pub(crate) fn labels(labels: &Value) -> Value {
    or_none(&Selector::from_json_set(labels).to_string())
}

/// A `LabelSelector` in its string form, or `<none>`.
pub(crate) fn label_selector(selector: &Value) -> Value {
    match Selector::from_label_selector(selector) {
        Ok(selector) => or_none(&selector.to_string()),
        Err(_) => "<error>".into(),
    }
}

/// The names and the images of the containers of a pod template.
pub(crate) fn containers(template: &Value) -> [Value; 2] {
    let containers = template.sub("spec").list("containers");
    ["name", "image"].map(|key| {
        let texts: Vec<&str> = containers.iter().map(|container| container.text(key)).collect();
        texts.join(",").into()
    })
}

/// At most `max` of the texts, and how many more there are.
pub(crate) fn at_most(texts: &[String], max: usize) -> String {
    if texts.len() > max {
        format!("{} + {} more...", texts[..max].join(","), texts.len() - max)
    } else {
        texts.join(",")
    }
}
