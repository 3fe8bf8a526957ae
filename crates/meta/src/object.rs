//! Reading the metadata of an object held as JSON, without its type.

use serde_json::Value;

/// Reads the parts of `metadata` that every kind has.
pub trait ObjectExt {
    /// `metadata.name`, or empty.
    fn name(&self) -> &str;
    /// `metadata.namespace`, or empty.
    fn namespace(&self) -> &str;
    /// `metadata.uid`, or empty.
    fn uid(&self) -> &str;
    /// `metadata.resourceVersion`, or empty.
    fn resource_version(&self) -> &str;
    /// `metadata.generation`, or 0.
    fn generation(&self) -> i64;
    /// Whether `metadata.deletionTimestamp` is set.
    fn is_terminating(&self) -> bool;
    /// `metadata.labels[key]`.
    fn label(&self, key: &str) -> Option<&str>;
    /// `metadata.annotations[key]`.
    fn annotation(&self, key: &str) -> Option<&str>;
    /// The value at a path of object keys.
    fn at(&self, path: &[&str]) -> Option<&Value>;
    /// The string at a path of object keys.
    fn str_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path).and_then(Value::as_str)
    }
    /// The integer at a path of object keys.
    fn int_at(&self, path: &[&str]) -> Option<i64> {
        self.at(path).and_then(Value::as_i64)
    }
}

impl ObjectExt for Value {
    fn name(&self) -> &str {
        self.str_at(&["metadata", "name"]).unwrap_or_default()
    }
    fn namespace(&self) -> &str {
        self.str_at(&["metadata", "namespace"]).unwrap_or_default()
    }
    fn uid(&self) -> &str {
        self.str_at(&["metadata", "uid"]).unwrap_or_default()
    }
    fn resource_version(&self) -> &str {
        self.str_at(&["metadata", "resourceVersion"]).unwrap_or_default()
    }
    fn generation(&self) -> i64 {
        self.int_at(&["metadata", "generation"]).unwrap_or_default()
    }
    fn is_terminating(&self) -> bool {
        self.at(&["metadata", "deletionTimestamp"])
            .is_some_and(|v| !v.is_null())
    }
    fn label(&self, key: &str) -> Option<&str> {
        self.str_at(&["metadata", "labels", key])
    }
    fn annotation(&self, key: &str) -> Option<&str> {
        self.str_at(&["metadata", "annotations", key])
    }
    fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }
}
