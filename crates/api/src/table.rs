//! Tables: what `kubectl get` shows. A kind names its columns and computes the cells of one object.
//! Upstream: `pkg/printers/internalversion/printers.go`, `k8s.io/apimachinery/pkg/api/meta/table`.

use coracle_meta::object::ObjectExt;
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

fn creation(object: &Value) -> Option<&str> {
    object.str_at(&["metadata", "creationTimestamp"])
}

/// The age cell of an object.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(creation(object), now).into()
}

/// How long ago an RFC 3339 time was, in words of at most two units; `<unknown>` without one.
pub fn since(time: Option<&str>, now: Timestamp) -> String {
    match time.and_then(|t| t.parse::<Timestamp>().ok()) {
        Some(time) => human_duration(now.duration_since(time).as_secs()),
        None => "<unknown>".to_owned(),
    }
}

/// How long until an RFC 3339 time.
pub fn until(time: Option<&str>, now: Timestamp) -> String {
    match time.and_then(|t| t.parse::<Timestamp>().ok()) {
        Some(time) => human_duration(time.duration_since(now).as_secs()),
        None => "<unknown>".to_owned(),
    }
}

/// A duration in seconds as people read it: `12s`, `4m4s`, `3h12m`, `2d4h`, `40d`, `2y30d`.
/// Upstream: `k8s.io/apimachinery/pkg/util/duration.HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    // The second unit is shown only while the first is small and only when it is not zero.
    let two = |first: i64, unit: &str, rest: i64, rest_unit: &str| {
        if rest == 0 {
            format!("{first}{unit}")
        } else {
            format!("{first}{unit}{rest}{rest_unit}")
        }
    };
    match seconds {
        s if s < -1 => "<invalid>".to_owned(),
        s if s < 0 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_upstream_prints_them() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (244, "4m4s"),
            (600, "10m"),
            (10_799, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 120, "3h2m"),
            (8 * 3600, "8h"),
            (47 * 3600 + 59, "47h"),
            (48 * 3600, "2d"),
            (50 * 3600, "2d2h"),
            (8 * 86_400, "8d"),
            (729 * 86_400, "729d"),
            (730 * 86_400, "2y"),
            (760 * 86_400, "2y30d"),
            (3000 * 86_400, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
