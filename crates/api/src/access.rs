//! Reading and writing the fields of an object held as JSON, with absence read as zero: upstream's structs
//! have no absent strings, lists and flags, and its rules are written in those terms.
//! The decoder has checked the types of fields against the schema; a wrong type reads as zero.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// Reads fields; everything is zero in `null`, so that paths may lead through absent objects.
pub(crate) trait Read {
    /// The field, unless absent or null.
    fn field(&self, key: &str) -> Option<&Value>;
    /// The field, or null.
    fn sub(&self, key: &str) -> &Value;
    /// The string, or empty.
    fn text(&self, key: &str) -> &str;
    /// The integer, if there is one.
    fn int(&self, key: &str) -> Option<i64>;
    /// The boolean, or false.
    fn flag(&self, key: &str) -> bool;
    /// The list, or empty.
    fn list(&self, key: &str) -> &[Value];
    /// The entries of the map, in order of keys; none if absent.
    fn entries(&self, key: &str) -> Box<dyn Iterator<Item = (&String, &Value)> + '_>;
    /// Whether the field is neither absent nor null.
    fn has(&self, key: &str) -> bool {
        self.field(key).is_some()
    }
    /// The strings of the list; others are left out.
    fn texts(&self, key: &str) -> Vec<&str> {
        self.list(key).iter().filter_map(Value::as_str).collect()
    }
    /// The number of entries of the map.
    fn size(&self, key: &str) -> usize {
        self.entries(key).count()
    }
}

impl Read for Value {
    fn field(&self, key: &str) -> Option<&Value> {
        self.get(key).filter(|value| !value.is_null())
    }
    fn sub(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&NULL)
    }
    fn text(&self, key: &str) -> &str {
        self.sub(key).as_str().unwrap_or_default()
    }
    fn int(&self, key: &str) -> Option<i64> {
        self.sub(key).as_i64()
    }
    fn flag(&self, key: &str) -> bool {
        self.sub(key).as_bool().unwrap_or_default()
    }
    fn list(&self, key: &str) -> &[Value] {
        self.sub(key).as_array().map_or(&[], Vec::as_slice)
    }
    fn entries(&self, key: &str) -> Box<dyn Iterator<Item = (&String, &Value)> + '_> {
        match self.sub(key) {
            Value::Object(map) => Box::new(map.iter()),
            _ => Box::new(std::iter::empty()),
        }
    }
}

/// Writes fields.
pub(crate) trait Write {
    /// Sets the field.
    fn put(&mut self, key: &str, value: impl Into<Value>);
    /// Sets the field if it is absent or null.
    fn fill(&mut self, key: &str, value: impl Into<Value>);
    /// Sets the field if it is absent, null or empty.
    fn fill_text(&mut self, key: &str, value: &str);
    /// Sets the field if it is absent, null or 0.
    fn fill_zero(&mut self, key: &str, value: i64);
    /// The object in the field, made if absent.
    fn object(&mut self, key: &str) -> &mut Value;
    /// The field, unless absent or null.
    fn existing(&mut self, key: &str) -> Option<&mut Value>;
    /// The elements of the list.
    fn items(&mut self, key: &str) -> std::slice::IterMut<'_, Value>;
    /// Removes the field.
    fn drop_field(&mut self, key: &str);
}

impl Write for Value {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        as_map(self).insert(key.to_owned(), value.into());
    }
    fn fill(&mut self, key: &str, value: impl Into<Value>) {
        if self.field(key).is_none() {
            self.put(key, value);
        }
    }
    fn fill_text(&mut self, key: &str, value: &str) {
        if self.field(key).is_none_or(|present| present == "") {
            self.put(key, value);
        }
    }
    fn fill_zero(&mut self, key: &str, value: i64) {
        if self.field(key).is_none_or(|present| present == 0) {
            self.put(key, value);
        }
    }
    fn object(&mut self, key: &str) -> &mut Value {
        let field = as_map(self).entry(key).or_insert(Value::Null);
        if field.is_null() {
            *field = Value::Object(Map::new());
        }
        field
    }
    fn existing(&mut self, key: &str) -> Option<&mut Value> {
        self.get_mut(key).filter(|value| !value.is_null())
    }
    fn items(&mut self, key: &str) -> std::slice::IterMut<'_, Value> {
        match self.get_mut(key) {
            Some(Value::Array(items)) => items.iter_mut(),
            _ => [].iter_mut(),
        }
    }
    fn drop_field(&mut self, key: &str) {
        if let Value::Object(map) = self {
            map.remove(key);
        }
    }
}

/// The value as an object; what is none is replaced by an empty one.
fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}
