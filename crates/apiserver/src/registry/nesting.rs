//! How deep what clients send may be nested. Upstream's parsers go deeper than any object needs; ours recurse, so
//! they stop where `serde_json` does when it reads an object back from the store.

use coracle_meta::Status;
use coracle_meta::patch::json::MAX_DEPTH;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::options::DuplicateKeyPolicy;
use std::fmt;

/// The YAML parser takes some 16 kB of stack for each level where it is not optimised.
const YAML_DEPTH: usize = 64;

/// The refusal of JSON text that is nested too deeply. Text that is not JSON is left to the parser.
pub fn check_text(json: &[u8]) -> Result<(), Status> {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
    }
    Ok(())
}

/// The same for what has been read already.
pub fn check(value: &Value) -> Result<(), Status> {
    if fits(value, MAX_DEPTH) {
        Ok(())
    } else {
        Err(too_deep())
    }
}

fn fits(value: &Value, levels: usize) -> bool {
    match value {
        Value::Object(_) | Value::Array(_) if levels == 0 => false,
        Value::Object(object) => object.values().all(|value| fits(value, levels - 1)),
        Value::Array(list) => list.iter().all(|value| fits(value, levels - 1)),
        _ => true,
    }
}

fn too_deep() -> Status {
    Status::bad_request(TooDeep(MAX_DEPTH).to_string())
}

struct TooDeep(usize);

impl fmt::Display for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the data is nested deeper than {} levels", self.0)
    }
}

/// YAML as JSON text; of a repeated key the last value wins. What clients send as YAML is JSON most of the time.
pub fn yaml_to_json(body: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        return Ok(serde_json::to_vec(&json)?);
    }
    let options = serde_saphyr::options! {
        // `Levels` counts levels, those behind aliases included. A body has fewer nodes than bytes.
        budget: serde_saphyr::budget! {
            max_depth: 2 * YAML_DEPTH,
            max_nodes: crate::http::body::LIMIT,
            max_events: crate::http::body::LIMIT,
        },
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let document: Document = serde_saphyr::from_str_with_options(std::str::from_utf8(body)?, options)?;
    Ok(serde_json::to_vec(&document.0)?)
}

struct Document(Value);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Levels(YAML_DEPTH).deserialize(deserializer).map(Self)
    }
}

/// Reads a value of at most so many levels.
#[derive(Clone, Copy)]
struct Levels(usize);

impl Levels {
    fn below<E: Error>(self) -> Result<Self, E> {
        self.0
            .checked_sub(1)
            .map(Self)
            .ok_or_else(|| E::custom(TooDeep(YAML_DEPTH)))
    }
}

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(below)? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            object.insert(key, members.next_value_seed(below)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn as_deep_as_the_store_is_read() {
        let deepest: Value = serde_json::from_str(&nested(MAX_DEPTH)).unwrap();
        assert!(serde_json::from_str::<Value>(&nested(MAX_DEPTH + 1)).is_err());
        assert!(check(&deepest).is_ok());
        assert!(check(&Value::Array(vec![deepest.clone()])).is_err());
        assert!(check_text(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(check_text(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(check_text(br#"{"a": "\"[[[", "b": "]\\"}"#).is_ok());
        assert!(check_text(format!("\"{}\"", "[".repeat(500)).as_bytes()).is_ok());
        assert_eq!(
            yaml_to_json(nested(MAX_DEPTH).as_bytes()).unwrap(),
            deepest.to_string().into_bytes()
        );
        let yaml = |levels: usize| format!("# YAML\n{}", nested(levels));
        let shallow = yaml_to_json(yaml(YAML_DEPTH).as_bytes()).unwrap();
        assert_eq!(shallow, nested(YAML_DEPTH).into_bytes());
        for levels in [YAML_DEPTH + 1, MAX_DEPTH + 1, 100_000] {
            assert!(yaml_to_json(yaml(levels).as_bytes()).is_err());
        }
    }

    /// A chain of aliases nests a value far deeper than its text is.
    #[test]
    fn levels_behind_aliases_count() {
        let mut yaml = format!("a0: &a0 {}\n", nested(50));
        for n in 1..50 {
            let before = n - 1;
            yaml += &format!("a{n}: &a{n} {}*a{before} {}\n", "[".repeat(50), "]".repeat(50));
        }
        let refusal = yaml_to_json(yaml.as_bytes()).unwrap_err().to_string();
        assert!(refusal.contains("nested deeper than 64 levels"), "{refusal}");
    }

    #[test]
    fn yaml_as_upstream_reads_it() {
        let json = |yaml: &str| String::from_utf8(yaml_to_json(yaml.as_bytes()).unwrap()).unwrap();
        assert_eq!(
            json("{a: yes, b: 014, c: ~, d: 1.5, e: '1', f: -3}"),
            r#"{"a":true,"b":12,"c":null,"d":1.5,"e":"1","f":-3}"#
        );
        assert_eq!(json("a: 1\na: 2\n"), r#"{"a":2}"#);
        assert_eq!(
            json("base: &b {x: 1}\nother: {<<: *b, y: 2}\n"),
            r#"{"base":{"x":1},"other":{"x":1,"y":2}}"#
        );
        assert_eq!(json("1: a\n"), r#"{"1":"a"}"#);
    }
}
