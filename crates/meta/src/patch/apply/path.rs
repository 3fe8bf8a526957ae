//! Steps of field paths, as `fieldsV1` writes them: `f:spec`, `k:{"name":"web"}`, `v:"value"`.
//! Upstream: `structured-merge-diff/fieldpath`.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// One step. It is kept in its written form, keys sorted, so that two steps are equal when their texts are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step(String);

impl Step {
    /// To a field of an object, or a key of a map.
    pub fn field(name: &str) -> Self {
        Self(format!("f:{name}"))
    }

    /// To the element of a list that has these values of the key fields.
    pub fn key<'v>(fields: impl IntoIterator<Item = (&'v str, &'v Value)>) -> Self {
        let sorted: BTreeMap<&str, &Value> = fields.into_iter().collect();
        let json = serde_json::to_string(&sorted).expect("a map with text keys is JSON");
        Self(format!("k:{json}"))
    }

    /// To an element of a set.
    pub fn value(value: &Value) -> Self {
        Self(format!("v:{value}"))
    }

    /// Reads a step, and brings it into the form in which two equal steps have equal texts.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("f", name) => Some(Self::field(name)),
            ("v", json) => Some(Self::value(&serde_json::from_str(json).ok()?)),
            ("k", json) => {
                let fields: BTreeMap<String, Value> = serde_json::from_str(json).ok()?;
                Some(Self::key(fields.iter().map(|(k, v)| (k.as_str(), v))))
            }
            ("i", index) => index.parse::<u64>().ok().map(|i| Self(format!("i:{i}"))),
            _ => None,
        }
    }

    /// The written form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, if this is a step to a field or a map's key.
    pub fn field_name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }
}

/// As in messages: `.spec`, `[name="web"]`, `[="value"]`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_at(2) {
            ("f:", name) => write!(f, ".{name}"),
            ("v:", json) => write!(f, "[={json}]"),
            ("k:", json) => {
                let fields: BTreeMap<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let fields: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "[{}]", fields.join(","))
            }
            (_, index) => write!(f, "[{index}]"),
        }
    }
}

/// A path in messages: `.spec.containers[name="web"].image`.
pub(crate) fn display(path: &[Step]) -> String {
    path.iter().map(ToString::to_string).collect()
}
