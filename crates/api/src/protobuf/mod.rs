//! Reading objects in protobuf, the form in which Go clients (kubectl's `create` among them) send the built-in kinds.
//! The schema says what a field is, a table of numbers (`cargo xtask protobuf`) which one. Writing is not needed:
//! every client accepts JSON. Upstream: `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`.

mod scalar;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use crate::schema::{Scalar, Shape, TypeRef};
use coracle_meta::GroupVersionKind;
use coracle_meta::patch::Schema;
use serde_json::{Map, Value};
use table::{Entry, Field};
use wire::Payload;

/// How protobuf objects begin; the envelope follows.
const MAGIC: &[u8] = b"k8s\0";
/// Upstream's types nest less deeply by far; CRD schemas may go deepest.
const MAX_DEPTH: usize = 100;

/// Why bytes are not an object in protobuf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// Another format.
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Magic,
    /// Ends early, or holds what protobuf cannot.
    #[error("malformed protobuf: {0}")]
    Malformed(&'static str),
    /// The envelope is around something else than protobuf.
    #[error("unable to decode object with content type {0:?}")]
    ContentType(String),
}

type Result<T> = std::result::Result<T, ProtobufError>;

/// An envelope: what the object says it is, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// The wire's `apiVersion`, or empty.
    pub api_version: &'a str,
    /// The kind, or empty.
    pub kind: &'a str,
    raw: &'a [u8],
}

/// Opens the envelope. Upstream: `runtime.Unknown`.
pub fn open(bytes: &[u8]) -> Result<Unknown<'_>> {
    let bytes = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let mut unknown = Unknown {
        api_version: "",
        kind: "",
        raw: &[],
    };
    for field in wire::fields(bytes) {
        match field? {
            (1, payload) => {
                for field in wire::fields(payload.bytes()?) {
                    match field? {
                        (1, text) => unknown.api_version = text.text()?,
                        (2, text) => unknown.kind = text.text()?,
                        _ => {}
                    }
                }
            }
            (2, payload) => unknown.raw = payload.bytes()?,
            (4, payload) if !payload.bytes()?.is_empty() => {
                return Err(ProtobufError::ContentType(payload.text()?.to_owned()));
            }
            _ => {}
        }
    }
    Ok(unknown)
}

impl Unknown<'_> {
    /// The object as JSON, without `apiVersion` and `kind`. `gvk` is what it is to be read as; a kind without a
    /// schema has no fields.
    pub fn decode(&self, gvk: &GroupVersionKind) -> Result<Value> {
        let mut object = Map::new();
        if let Some(ty) = crate::schema::lookup(gvk) {
            message(ty, self.raw, 0, &mut object)?;
        }
        Ok(Value::Object(object))
    }
}

/// Reads a message whose fields are declared by `ty` into `out`.
fn message(ty: TypeRef, bytes: &[u8], depth: usize, out: &mut Map<String, Value>) -> Result<()> {
    let entry = ty.name().and_then(table::by_name).unwrap_or_default();
    fields(entry, ty, bytes, depth, out)
}

fn fields(entry: Entry, ty: TypeRef, bytes: &[u8], depth: usize, out: &mut Map<String, Value>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Malformed("nested too deeply"));
    }
    for item in wire::fields(bytes) {
        let (number, payload) = item?;
        // What newer clients know and this server does not is dropped, as Go drops it.
        let Some(field) = entry.field(number) else {
            continue;
        };
        match field {
            Field::Inline(name) => {
                let inner = table::by_name(name).unwrap_or_default();
                fields(inner, ty, payload.bytes()?, depth + 1, out)?;
            }
            Field::Named { name, keeps_zero } => {
                let Some(ty) = ty.child(name) else { continue };
                named(name, keeps_zero, ty, payload, depth + 1, out)?;
            }
        }
    }
    Ok(())
}

fn named(
    name: &str,
    keeps_zero: bool,
    ty: TypeRef,
    payload: Payload,
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<()> {
    match ty.shape() {
        Shape::List(element) => {
            let list = out.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                elements(element, payload, depth, list)?;
            }
        }
        Shape::Map(value) => {
            let (key, value) = map_entry(value, payload.bytes()?, depth)?;
            let map = out.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        }
        Shape::Object | Shape::Scalar(_) => {
            let value = single(ty, payload, depth)?;
            if keeps_zero || !is_zero(&value) {
                out.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// Repeated numbers may come packed.
fn elements(ty: TypeRef, payload: Payload, depth: usize, out: &mut Vec<Value>) -> Result<()> {
    let packed = matches!(
        ty.shape(),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Bool)
    );
    match (packed, payload) {
        (true, Payload::Bytes(mut bytes)) => {
            while !bytes.is_empty() {
                let number = wire::varint(&mut bytes)?;
                out.push(single(ty, Payload::Varint(number), depth)?);
            }
        }
        _ => out.push(single(ty, payload, depth)?),
    }
    Ok(())
}

fn map_entry(ty: TypeRef, bytes: &[u8], depth: usize) -> Result<(String, Value)> {
    let mut key = String::new();
    let mut value = match ty.shape() {
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Scalar(Scalar::String | Scalar::Bytes) => Value::String(String::new()),
        Shape::Scalar(_) => Value::Null,
        _ => Value::Object(Map::new()),
    };
    for item in wire::fields(bytes) {
        match (item?, ty.shape()) {
            ((1, text), _) => text.text()?.clone_into(&mut key),
            // A bare list is wrapped in a message: `ExtraValue`.
            ((2, payload), Shape::List(element)) => {
                let mut list = Vec::new();
                for item in wire::fields(payload.bytes()?) {
                    elements(element, item?.1, depth, &mut list)?;
                }
                value = Value::Array(list);
            }
            ((2, payload), _) => value = single(ty, payload, depth)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn single(ty: TypeRef, payload: Payload, depth: usize) -> Result<Value> {
    match ty.shape() {
        Shape::Scalar(Scalar::Any) => any(ty, payload.bytes()?, depth),
        Shape::Scalar(scalar) => scalar::read(scalar, payload),
        Shape::Object => {
            let mut object = Map::new();
            message(ty, payload.bytes()?, depth, &mut object)?;
            Ok(Value::Object(object))
        }
        Shape::List(_) | Shape::Map(_) => Err(ProtobufError::Malformed("a list of lists")),
    }
}

/// The types of CRD schemas that are one thing or another in JSON.
fn any(ty: TypeRef, bytes: &[u8], depth: usize) -> Result<Value> {
    let name = ty.name().unwrap_or_default();
    let (package, short) = name.rsplit_once('.').unwrap_or(("", name));
    if short == "JSON" {
        return scalar::raw_json(bytes);
    }
    let schema = crate::schema::by_name(&format!("{package}.JSONSchemaProps"));
    let schema = schema.ok_or(ProtobufError::Malformed("a type without a form in protobuf"))?;
    let mut value = Value::Null;
    for item in wire::fields(bytes) {
        match (short, item?) {
            ("JSONSchemaPropsOrBool", (1, flag)) if value.is_null() => value = (flag.number()? != 0).into(),
            ("JSONSchemaPropsOrBool", (2, payload))
            | ("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray", (1, payload)) => {
                value = single(schema, payload, depth + 1)?;
            }
            ("JSONSchemaPropsOrArray", (2, payload)) => push(&mut value, single(schema, payload, depth + 1)?),
            ("JSONSchemaPropsOrStringArray", (2, text)) => push(&mut value, text.text()?.into()),
            _ => {}
        }
    }
    Ok(value)
}

fn push(list: &mut Value, value: Value) {
    match list {
        Value::Array(list) => list.push(value),
        _ => *list = Value::Array(vec![value]),
    }
}

/// Go writes fields that are no pointers even where they are zero.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}
