//! Equality as the API means it: absent, null and empty are one.
//! Upstream: `k8s.io/apimachinery/pkg/api/equality`.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Fields whose false or 0 is their absence: upstream declares them without a pointer. For all others a zero
/// says something that absence does not.
const ZERO_IS_ABSENT: &[&str] = &[
    "backoffLimitPerIndex",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "minReadySeconds",
    "nodePort",
    "observedGeneration",
    "paused",
    "publishNotReadyAddresses",
    "readOnly",
    "stdin",
    "stdinOnce",
    "tty",
    "unschedulable",
    "weight",
];

/// Fields whose empty object is their absence; for all others (`emptyDir: {}`, `podSelector: {}`) it is not.
const EMPTY_IS_ABSENT: &[&str] = &[
    "annotations",
    "binaryData",
    "clientIP",
    "data",
    "labels",
    "limits",
    "loadBalancer",
    "matchLabels",
    "metadata",
    "nodeSelector",
    "overhead",
    "parameters",
    "requests",
    "resources",
    "securityContext",
    "status",
    "strategy",
    "updateStrategy",
];

/// Whether two values say the same.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => equal_objects(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        _ => a == b,
    }
}

/// Whether a field says the same in two objects.
pub fn equal_field(a: &Value, b: &Value, key: &str) -> bool {
    equal_entries(key, a.get(key), b.get(key))
}

/// What was said and is said, path by path, for people: `- path: old` and `+ path: new`.
pub(crate) fn difference(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    collect_difference("", "", old, new, &mut lines);
    lines.join("\n")
}

fn collect_difference(path: &str, key: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    if equal_entries(key, Some(old), Some(new)) {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let side = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                collect_difference(&path, key, &side(a), &side(b), lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                collect_difference(&format!("{path}[{index}]"), key, a, b, lines);
            }
        }
        _ => {
            for (sign, value) in [("-", old), ("+", new)] {
                if !value.is_null() {
                    lines.push(format!("{sign} {path}: {value}"));
                }
            }
        }
    }
}

fn equal_objects(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.iter()
        .all(|(key, value)| equal_entries(key, Some(value), b.get(key)))
        && b.iter()
            .filter(|(key, _)| !a.contains_key(*key))
            .all(|(key, value)| is_absent(key, value))
}

fn equal_entries(key: &str, a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => equal(a, b) || (is_absent(key, a) && is_absent(key, b)),
        (Some(one), None) | (None, Some(one)) => is_absent(key, one),
        (None, None) => true,
    }
}

fn is_absent(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty() && EMPTY_IS_ABSENT.contains(&key),
        Value::Bool(false) => ZERO_IS_ABSENT.contains(&key),
        Value::Number(n) => n.as_i64() == Some(0) && ZERO_IS_ABSENT.contains(&key),
        Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absence_has_many_forms() {
        assert!(equal(&json!({"a": null, "labels": {}}), &json!({"args": []})));
        assert!(equal(&json!({"hostNetwork": false}), &json!({})));
        assert!(!equal(&json!({"emptyDir": {}}), &json!({})));
        assert!(!equal(&json!({"runAsUser": 0}), &json!({})));
        assert!(!equal(&json!({"a": [1]}), &json!({"a": [2]})));
    }

    #[test]
    fn differences_name_their_paths() {
        let old = json!({"a": [{"image": "x"}], "b": 1, "labels": {}});
        let new = json!({"a": [{"image": "y"}], "c": 2});
        let text = "- a[0].image: \"x\"\n+ a[0].image: \"y\"\n- b: 1\n+ c: 2";
        assert_eq!(difference(&old, &new), text);
    }
}
