//! Decoding into a type: unknown and repeated fields are found, wrong types refused, values brought into the form
//! in which they are stored. Messages are those of upstream's decoder (`sigs.k8s.io/json`), which speaks of Go types.

mod scalar;

use super::{Field, Scalar, Shape, TypeRef};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Upstream stops collecting there.
const MAX_STRICT_ERRORS: usize = 100;

/// An object that fits its type.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object without unknown fields, nulls, and empty optional lists and maps; quantities and times are
    /// canonical. That is the form in which upstream stores and returns it.
    pub value: Value,
    /// What strict decoding refuses, and what is otherwise a warning: `unknown field "spec.foo"`,
    /// `duplicate field "spec.bar"`.
    pub strict: Vec<String>,
}

/// Why an object does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("{0}")]
    Syntax(String),
    /// A field has another type; the text is upstream's.
    #[error("{0}")]
    Type(String),
}

/// Decodes JSON text.
pub fn decode(ty: TypeRef, json: &[u8]) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let decoded = run(ty, &mut deserializer)?;
    deserializer
        .end()
        .map_err(|e| DecodeError::Syntax(e.to_string()))?;
    Ok(decoded)
}

/// Decodes what is JSON already: the result of a patch, or YAML. Repeated fields are lost before this.
pub fn decode_value(ty: TypeRef, value: &Value) -> Result<Decoded, DecodeError> {
    run(ty, value)
}

/// The text of the 400 that answers an object that cannot be decoded. `why` is a [`DecodeError`], or
/// `strict decoding error: ` and the strict errors joined by `, `.
pub fn cannot_be_handled(kind: &str, version: &str, why: impl fmt::Display) -> String {
    format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}")
}

fn run<'de, D: Deserializer<'de>>(ty: TypeRef, deserializer: D) -> Result<Decoded, DecodeError>
where
    D::Error: fmt::Display,
{
    let mut context = Context::default();
    let seed = Seed {
        ty,
        context: &mut context,
    };
    match seed.deserialize(deserializer) {
        Ok(value) => Ok(Decoded {
            value: value.unwrap_or_else(|| Value::Object(Map::new())),
            strict: context.strict,
        }),
        Err(error) => Err(match context.error {
            Some(message) => DecodeError::Type(message),
            None => DecodeError::Syntax(error.to_string()),
        }),
    }
}

/// Where the decoder is and what it has found.
#[derive(Default)]
struct Context {
    /// `spec.containers[0].name`.
    path: String,
    /// The names of the fields on the way, without indices and map keys, as Go counts them.
    fields: Vec<&'static str>,
    /// The innermost type with fields.
    owner: Option<TypeRef>,
    strict: Vec<String>,
    error: Option<String>,
}

impl Context {
    fn complain(&mut self, what: &str, key: &str) {
        if self.strict.len() < MAX_STRICT_ERRORS {
            let dot = if self.path.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{key}", self.path);
            self.strict.push(format!("{what} field {path:?}"));
        }
    }

    /// Runs `f` one key further down.
    fn below<T>(&mut self, key: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        let result = f(self);
        self.path.truncate(length);
        result
    }

    /// Upstream's text about a value of the wrong type.
    fn mismatch(&self, found: &str, ty: TypeRef) -> String {
        let wanted = ty.go_name();
        match self.owner.and_then(TypeRef::name) {
            Some(owner) if !self.fields.is_empty() => {
                let owner = owner.rsplit('.').next().unwrap_or_default();
                let path = self.fields.join(".");
                format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}")
            }
            _ => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
        }
    }

    fn fail<T, E: Error>(&mut self, message: String) -> Result<T, E> {
        self.error = Some(message);
        Err(E::custom("value of the wrong type"))
    }
}

/// Decodes a value of one type; `None` is null, or what is stored as absent.
struct Seed<'c> {
    ty: TypeRef,
    context: &'c mut Context,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_> {
    /// A scalar of the JSON type `found`, or Go's complaint.
    fn scalar<E: Error>(self, found: &str, value: Value) -> Result<Option<Value>, E> {
        let Shape::Scalar(scalar) = self.ty.shape() else {
            let message = self.context.mismatch(found, self.ty);
            return self.context.fail(message);
        };
        match scalar::accept(scalar, value) {
            Ok(value) => Ok(Some(value)),
            Err(scalar::Refusal::Mismatch(detail)) => {
                let message = self.context.mismatch(detail.as_deref().unwrap_or(found), self.ty);
                self.context.fail(message)
            }
            Err(scalar::Refusal::Own(message)) => self.context.fail(message),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        let any = self.ty.shape() == Shape::Scalar(Scalar::Any);
        Ok(any.then_some(Value::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        self.scalar("bool", Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        self.scalar("number", Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        self.scalar("number", Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        self.scalar("number", Value::from(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        self.scalar("string", Value::from(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Self::Value, E> {
        self.scalar("string", Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let element = match self.ty.shape() {
            Shape::List(element) => element,
            Shape::Scalar(Scalar::Any) => {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                return Ok(Some(Value::Array(list)));
            }
            Shape::Scalar(scalar) => {
                let message = scalar::composite(scalar, "array")
                    .unwrap_or_else(|| self.context.mismatch("array", self.ty));
                return self.context.fail(message);
            }
            Shape::Object | Shape::Map(_) => {
                let message = self.context.mismatch("array", self.ty);
                return self.context.fail(message);
            }
        };
        let mut list = Vec::new();
        let length = self.context.path.len();
        loop {
            self.context.path.push_str(&format!("[{}]", list.len()));
            let next = seq.next_element_seed(Seed {
                ty: element,
                context: self.context,
            });
            self.context.path.truncate(length);
            match next? {
                Some(value) => list.push(value.unwrap_or_else(|| zero(element))),
                None => return Ok(Some(Value::Array(list))),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        match self.ty.shape() {
            Shape::Object => self.object(map).map(Some),
            Shape::Map(value) => self.map(value, map).map(Some),
            Shape::Scalar(Scalar::Any | Scalar::Opaque) => {
                let mut map = map;
                let mut object = Map::new();
                while let Some((key, value)) = map.next_entry()? {
                    object.insert(key, value);
                }
                Ok(Some(Value::Object(object)))
            }
            Shape::Scalar(scalar) => {
                let message = scalar::composite(scalar, "object")
                    .unwrap_or_else(|| self.context.mismatch("object", self.ty));
                self.context.fail(message)
            }
            Shape::List(_) => {
                let message = self.context.mismatch("object", self.ty);
                self.context.fail(message)
            }
        }
    }
}

impl Seed<'_> {
    fn object<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let outer = self.context.owner.replace(self.ty);
        let mut object = Map::new();
        let mut seen: Vec<&'static str> = Vec::new();
        while let Some(key) = map.next_key_seed(Key(self.ty))? {
            let field = match key {
                Ok(field) => field,
                Err(unknown) => {
                    self.context.complain("unknown", &unknown);
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if seen.contains(&field.name) {
                self.context.complain("duplicate", field.name);
            }
            seen.push(field.name);
            self.context.fields.push(field.name);
            let value = self.context.below(field.name, |context| {
                map.next_value_seed(Seed {
                    ty: field.ty,
                    context,
                })
            })?;
            self.context.fields.pop();
            match value {
                Some(value) if field.required || !is_empty(field.ty, &value) => {
                    object.insert(field.name.to_owned(), value);
                }
                _ => {
                    object.remove(field.name);
                }
            }
        }
        self.context.owner = outer;
        Ok(Value::Object(object))
    }

    fn map<'de, A: MapAccess<'de>>(self, ty: TypeRef, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                self.context.complain("duplicate", &key);
            }
            let value = self
                .context
                .below(&key, |context| map.next_value_seed(Seed { ty, context }))?;
            object.insert(key, value.unwrap_or_else(|| zero(ty)));
        }
        Ok(Value::Object(object))
    }
}

/// Whether an optional field with this value is stored as absent. Structs are not: `emptyDir: {}` says something.
fn is_empty(ty: TypeRef, value: &Value) -> bool {
    match ty.shape() {
        Shape::List(_) => value.as_array().is_some_and(Vec::is_empty),
        Shape::Map(_) => value.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// What a null in a list or a map becomes.
fn zero(ty: TypeRef) -> Value {
    match ty.shape() {
        Shape::Object | Shape::Map(_) => Value::Object(Map::new()),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Bytes => Value::from(""),
            Scalar::Bool => Value::Bool(false),
            Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString => Value::from(0),
            Scalar::Quantity => Value::from("0"),
            Scalar::Time | Scalar::MicroTime | Scalar::Opaque | Scalar::Any => Value::Null,
        },
    }
}

/// A key of an object: a declared field, or the unknown name.
struct Key(TypeRef);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Result<&'static Field, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Result<&'static Field, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.find(key).ok_or_else(|| key.to_owned()))
    }
}
