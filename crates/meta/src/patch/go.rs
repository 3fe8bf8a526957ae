//! Values and types as Go prints them: messages of upstream's patch code contain them.

use serde_json::Value;
use std::fmt;

/// A value as Go's `%v` prints it; messages have it.
pub(crate) fn print(value: &Value) -> String {
    struct Go<'v>(&'v Value);
    impl fmt::Display for Go<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {
                Value::Null => f.write_str("<nil>"),
                Value::String(text) => f.write_str(text),
                Value::Array(list) => {
                    let items: Vec<String> = list.iter().map(print).collect();
                    write!(f, "[{}]", items.join(" "))
                }
                Value::Object(object) => {
                    let items: Vec<String> = object.iter().map(|(k, v)| format!("{k}:{}", Go(v))).collect();
                    write!(f, "map[{}]", items.join(" "))
                }
                scalar => scalar.fmt(f),
            }
        }
    }
    Go(value).to_string()
}

/// The Go type that upstream decodes a value to.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
