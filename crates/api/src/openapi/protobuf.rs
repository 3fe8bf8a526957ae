//! `/openapi/v2` in protobuf, the form in which kubectl and client-go ask for it: the message `Document` of
//! `openapiv2/OpenAPIv2.proto` in gnostic-models. The tables have the members that our document has.

use serde_json::Value;

/// A message, as the JSON object that it is made from.
pub(super) struct Message {
    fields: &'static [Field],
    /// The field for members that begin with `x-`.
    extensions: u32,
}

struct Field {
    /// The member in JSON.
    name: &'static str,
    /// Numbers of the fields on the way to the value: what is one member in JSON may be a message in a message.
    numbers: &'static [u32],
    form: Form,
}

/// What a value becomes. A list becomes a field for each element.
enum Form {
    Text,
    Bool,
    /// `Any`: the value as YAML, and JSON is YAML.
    Any,
    Message(&'static Message),
    /// A `Named…` for each member: the name, and the value at the end of the way.
    Map(&'static [u32], &'static Form),
    /// What stands for a parameter depends on where it is.
    Parameter,
}

const fn text(name: &'static str, numbers: &'static [u32]) -> Field {
    field(name, numbers, Form::Text)
}

const fn field(name: &'static str, numbers: &'static [u32], form: Form) -> Field {
    Field { name, numbers, form }
}

pub(super) static DOCUMENT: Message = Message {
    fields: &[
        text("swagger", &[1]),
        field("info", &[2], Form::Message(&INFO)),
        field("paths", &[8, 2], Form::Map(&[2], &Form::Message(&PATH_ITEM))),
        field("definitions", &[9, 1], Form::Map(&[2], &Form::Message(&SCHEMA))),
        field("security", &[12, 1], Form::Map(&[2, 1], &Form::Text)),
        field(
            "securityDefinitions",
            &[13, 1],
            Form::Map(&[2, 2], &Form::Message(&API_KEY_SECURITY)),
        ),
    ],
    extensions: 16,
};

static INFO: Message = Message {
    fields: &[text("title", &[1]), text("version", &[2])],
    extensions: 7,
};

static API_KEY_SECURITY: Message = Message {
    fields: &[
        text("type", &[1]),
        text("name", &[2]),
        text("in", &[3]),
        text("description", &[4]),
    ],
    extensions: 5,
};

static PATH_ITEM: Message = Message {
    fields: &[
        field("get", &[2], Form::Message(&OPERATION)),
        field("put", &[3], Form::Message(&OPERATION)),
        field("post", &[4], Form::Message(&OPERATION)),
        field("delete", &[5], Form::Message(&OPERATION)),
        field("options", &[6], Form::Message(&OPERATION)),
        field("head", &[7], Form::Message(&OPERATION)),
        field("patch", &[8], Form::Message(&OPERATION)),
        field("parameters", &[9], Form::Parameter),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        text("tags", &[1]),
        text("operationId", &[5]),
        text("produces", &[6]),
        text("consumes", &[7]),
        field("parameters", &[8], Form::Parameter),
        field(
            "responses",
            &[9, 1],
            Form::Map(&[2, 1], &Form::Message(&RESPONSE)),
        ),
        text("schemes", &[10]),
    ],
    extensions: 13,
};

static RESPONSE: Message = Message {
    fields: &[
        text("description", &[1]),
        field("schema", &[2, 1], Form::Message(&SCHEMA)),
    ],
    extensions: 5,
};

static BODY_PARAMETER: Message = Message {
    fields: &[
        text("name", &[2]),
        text("in", &[3]),
        field("required", &[4], Form::Bool),
        field("schema", &[5], Form::Message(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        text("in", &[2]),
        text("name", &[4]),
        text("type", &[6]),
        field("uniqueItems", &[20], Form::Bool),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        field("required", &[1], Form::Bool),
        text("in", &[2]),
        text("name", &[4]),
        text("type", &[5]),
        field("uniqueItems", &[19], Form::Bool),
    ],
    extensions: 22,
};

static SCHEMA: Message = Message {
    fields: &[
        text("$ref", &[1]),
        text("format", &[2]),
        field("default", &[5], Form::Any),
        text("required", &[19]),
        field("additionalProperties", &[21, 1], Form::Message(&SCHEMA)),
        text("type", &[22, 1]),
        field("items", &[23, 1], Form::Message(&SCHEMA)),
        field("properties", &[25, 1], Form::Map(&[2], &Form::Message(&SCHEMA))),
    ],
    extensions: 31,
};

impl Message {
    /// Writes the members of `object`. Members of a document can come in several calls: a parser merges them.
    pub(super) fn write(&self, object: &Value, out: &mut Vec<u8>) {
        for (name, value) in object.as_object().into_iter().flatten() {
            match self.fields.iter().find(|field| field.name == name) {
                Some(field) => field.form.write(field.numbers, value, out),
                None if name.starts_with("x-") => {
                    put(&[self.extensions], out, |out| {
                        named(name, out, |out| Form::Any.write(&[2], value, out));
                    });
                }
                None => debug_assert!(false, "no field for {name}"),
            }
        }
    }
}

impl Form {
    fn write(&self, numbers: &[u32], value: &Value, out: &mut Vec<u8>) {
        if let (Value::Array(list), false) = (value, matches!(self, Self::Any)) {
            list.iter().for_each(|element| self.write(numbers, element, out));
            return;
        }
        match self {
            Self::Text => {
                let text = value.as_str().unwrap_or_default();
                put(numbers, out, |out| out.extend_from_slice(text.as_bytes()));
            }
            Self::Bool => {
                if let Some((last, way)) = numbers.split_last() {
                    put(way, out, |out| {
                        varint(u64::from(*last) << 3, out);
                        out.push(u8::from(value == &Value::Bool(true)));
                    });
                }
            }
            Self::Any => {
                let yaml = value.to_string();
                put(numbers, out, |out| {
                    put(&[2], out, |out| out.extend_from_slice(yaml.as_bytes()))
                });
            }
            Self::Message(message) => put(numbers, out, |out| message.write(value, out)),
            Self::Map(way, form) => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    put(numbers, out, |out| {
                        named(name, out, |out| form.write(way, value, out))
                    });
                }
            }
            Self::Parameter => {
                let (way, message): (&[u32], _) = match value["in"].as_str() {
                    Some("body") => (&[1, 1], &BODY_PARAMETER),
                    Some("path") => (&[1, 2, 4], &PATH_PARAMETER),
                    _ => (&[1, 2, 3], &QUERY_PARAMETER),
                };
                put(numbers, out, |out| put(way, out, |out| message.write(value, out)));
            }
        }
    }
}

/// `Named…`: the name is field 1 everywhere.
fn named(name: &str, out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>)) {
    put(&[1], out, |out| out.extend_from_slice(name.as_bytes()));
    value(out);
}

/// Writes content as the field at the end of a way; where there is no way it stands where it is.
fn put(numbers: &[u32], out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    content(&mut inner);
    for number in numbers.iter().rev() {
        let mut outer = Vec::with_capacity(inner.len() + 8);
        varint(u64::from(*number) << 3 | 2, &mut outer);
        varint(inner.len() as u64, &mut outer);
        outer.append(&mut inner);
        inner = outer;
    }
    out.append(&mut inner);
}

/// A number in groups of seven bits, the lowest first.
#[expect(clippy::cast_possible_truncation, reason = "seven bits fit")]
fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
