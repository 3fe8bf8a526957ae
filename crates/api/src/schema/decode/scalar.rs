//! Which JSON a scalar accepts and the form in which it is kept.

use super::super::Scalar;
use coracle_meta::{Quantity, timestamp};
use serde_json::Value;

/// Why a value is not accepted.
pub(super) enum Refusal {
    /// Another JSON type; the text replaces the type's name (`number 1.5`).
    Mismatch(Option<String>),
    /// The type's own parser complained.
    Own(String),
}

/// The value as it is kept.
pub(super) fn accept(scalar: Scalar, value: Value) -> Result<Value, Refusal> {
    match scalar {
        Scalar::Any => Ok(value),
        Scalar::String if value.is_string() => Ok(value),
        Scalar::Bool if value.is_boolean() => Ok(value),
        Scalar::Double if value.is_number() => Ok(value),
        Scalar::Int32 | Scalar::Int64 => integer(scalar, value),
        Scalar::Bytes => match value {
            Value::String(text) => base64(&text).map(Value::String),
            _ => Err(Refusal::Mismatch(None)),
        },
        Scalar::Quantity => {
            let text = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            let quantity = Quantity::parse(text.trim()).map_err(|e| Refusal::Own(e.to_string()))?;
            Ok(Value::String(quantity.to_string()))
        }
        Scalar::IntOrString => match value {
            Value::String(_) => Ok(value),
            other => {
                let found = found(&other);
                integer(Scalar::Int32, other).map_err(|refusal| {
                    let found = match refusal {
                        Refusal::Mismatch(Some(detail)) => detail,
                        _ => found.to_owned(),
                    };
                    Refusal::Own(format!(
                        "json: cannot unmarshal {found} into Go value of type int32"
                    ))
                })
            }
        },
        Scalar::Time | Scalar::MicroTime => match value {
            Value::String(text) => time(scalar, &text).map(Value::String),
            other => Err(Refusal::Own(not_text(found(&other)))),
        },
        Scalar::String | Scalar::Bool | Scalar::Double | Scalar::Opaque => Err(Refusal::Mismatch(None)),
    }
}

/// The complaint of types with their own parser about a list or an object, if it is their own.
pub(super) fn composite(scalar: Scalar, found: &str) -> Option<String> {
    match scalar {
        Scalar::Quantity => Some(coracle_meta::quantity::QuantityError::Format.to_string()),
        Scalar::IntOrString => Some(format!(
            "json: cannot unmarshal {found} into Go value of type int32"
        )),
        Scalar::Time | Scalar::MicroTime => Some(not_text(found)),
        _ => None,
    }
}

fn not_text(found: &str) -> String {
    format!("json: cannot unmarshal {found} into Go value of type string")
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn integer(scalar: Scalar, value: Value) -> Result<Value, Refusal> {
    let Value::Number(number) = &value else {
        return Err(Refusal::Mismatch(None));
    };
    let fits = match scalar {
        Scalar::Int32 => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        _ => number.is_i64(),
    };
    if fits {
        Ok(value)
    } else {
        Err(Refusal::Mismatch(Some(format!("number {number}"))))
    }
}

/// Any RFC 3339 time, kept in UTC and in the type's precision.
fn time(scalar: Scalar, text: &str) -> Result<String, Refusal> {
    let layout = match scalar {
        Scalar::MicroTime => "2006-01-02T15:04:05.000000Z07:00",
        _ => "2006-01-02T15:04:05Z07:00",
    };
    let Some(time) = timestamp::parse(text) else {
        return Err(Refusal::Own(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
        )));
    };
    Ok(match scalar {
        Scalar::MicroTime => timestamp::format_micro_time(time),
        _ => timestamp::format_time(time),
    })
}

/// Standard base64 with padding; line breaks are dropped.
fn base64(text: &str) -> Result<String, Refusal> {
    let bad = |at: usize| Refusal::Own(format!("illegal base64 data at input byte {at}"));
    let mut kept = String::with_capacity(text.len());
    let mut padding = 0;
    for (i, c) in text.char_indices() {
        match c {
            '\r' | '\n' => continue,
            '=' => padding += 1,
            'A'..='Z' | 'a'..='z' | '0'..='9' | '+' | '/' if padding == 0 => {}
            _ => return Err(bad(i)),
        }
        kept.push(c);
    }
    if !kept.len().is_multiple_of(4) || padding > 2 {
        return Err(bad(text.len()));
    }
    Ok(kept)
}
