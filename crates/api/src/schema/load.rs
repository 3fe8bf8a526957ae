//! Reads the table. A line without indentation is a type: its name, then a shape unless it is an object, then
//! `atomic`. Below it, ` =GROUP/VERSION/KIND` names a kind, and other lines are fields: name (`!` is required, `~` is
//! written even if unset), type (`[T]` a list, `{T}` a map), attributes. The table is ours: what is wrong in it is a bug, found by the tests.

use super::{Attributes, Expression, Field, Scalar, Table, Type, TypeRef, TypeShape};
use coracle_meta::patch::{ListKind, Strategy};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Splits `GROUP/VERSION/KIND`.
pub(super) fn split_kind(kind: &'static str) -> Option<(&'static str, &'static str, &'static str)> {
    let (group, rest) = kind.split_once('/')?;
    let (version, kind) = rest.split_once('/')?;
    Some((group, version, kind))
}

#[derive(Default)]
struct Loader {
    names: HashMap<&'static str, u16>,
    interned: HashMap<Expression, u16>,
    expressions: Vec<Expression>,
    attributes: Vec<Attributes>,
}

fn index(length: usize) -> u16 {
    u16::try_from(length).expect("the table has fewer than 65536 entries of each sort")
}

pub(super) fn load(text: &'static str) -> Table {
    let mut loader = Loader::default();
    loader.attributes.push(Attributes::default());
    let lines = || text.lines().filter(|line| !line.starts_with('#'));
    // Fields refer to types further down: names first.
    let headers = lines().filter(|line| !line.starts_with(' '));
    for (i, header) in headers.enumerate() {
        let name = header.split(' ').next().unwrap_or_default();
        loader.names.insert(name, index(i));
        loader.intern(Expression::Named(index(i)));
    }

    let mut types: Vec<Type> = Vec::with_capacity(loader.names.len());
    let mut fields: Vec<Field> = Vec::new();
    let mut kinds_of_type: Vec<&'static str> = Vec::new();
    let mut kinds = HashMap::new();
    for line in lines() {
        if let Some(kind) = line.strip_prefix(" =") {
            kinds_of_type.push(kind);
            let key = split_kind(kind).expect("a kind has three parts");
            kinds.insert(key, index(types.len() - 1));
        } else if let Some(field) = line.strip_prefix(' ') {
            fields.push(loader.field(field));
            if let Some(TypeShape::Object { last, .. }) = types.last_mut().map(|ty| &mut ty.shape) {
                *last = index(fields.len());
            }
        } else {
            close(types.last_mut(), &mut kinds_of_type);
            types.push(header(line, index(fields.len())));
        }
        // Kinds come before fields, so this type's kinds are complete at the latest at its end.
    }
    close(types.last_mut(), &mut kinds_of_type);
    fields.shrink_to_fit();
    Table {
        types,
        fields,
        expressions: loader.expressions,
        attributes: loader.attributes,
        kinds,
    }
}

fn close(ty: Option<&mut Type>, kinds: &mut Vec<&'static str>) {
    if let Some(ty) = ty {
        ty.kinds = kinds.drain(..).collect();
    }
}

fn header(line: &'static str, first: u16) -> Type {
    let mut ty = Type {
        name: "",
        shape: TypeShape::Object { first, last: first },
        atomic: false,
        kinds: Box::default(),
    };
    for (i, word) in line.split(' ').enumerate() {
        match word {
            name if i == 0 => ty.name = name,
            "atomic" => ty.atomic = true,
            shape => ty.shape = TypeShape::Scalar(scalar(shape).expect("a shape is a scalar's name")),
        }
    }
    ty
}

fn scalar(name: &str) -> Option<Scalar> {
    Some(match name {
        "string" => Scalar::String,
        "bytes" => Scalar::Bytes,
        "bool" => Scalar::Bool,
        "int32" => Scalar::Int32,
        "int64" => Scalar::Int64,
        "double" => Scalar::Double,
        "quantity" => Scalar::Quantity,
        "intorstring" => Scalar::IntOrString,
        "time" => Scalar::Time,
        "microtime" => Scalar::MicroTime,
        "opaque" => Scalar::Opaque,
        "any" => Scalar::Any,
        _ => return None,
    })
}

impl Loader {
    fn intern(&mut self, expression: Expression) -> u16 {
        *self.interned.entry(expression).or_insert_with(|| {
            self.expressions.push(expression);
            index(self.expressions.len() - 1)
        })
    }

    fn expression(&mut self, text: &'static str) -> u16 {
        let inside = |open, close| {
            text.strip_prefix(open)
                .and_then(|t: &'static str| t.strip_suffix(close))
        };
        let expression = if let Some(element) = inside('[', ']') {
            Expression::List(self.expression(element))
        } else if let Some(value) = inside('{', '}') {
            Expression::Map(self.expression(value))
        } else if let Some(scalar) = scalar(text) {
            Expression::Scalar(scalar)
        } else {
            Expression::Named(
                *self
                    .names
                    .get(text)
                    .expect("a type that is named is in the table"),
            )
        };
        self.intern(expression)
    }

    fn field(&mut self, line: &'static str) -> Field {
        let mut words = line.splitn(3, ' ');
        let name = words.next().unwrap_or_default();
        let expression = self.expression(words.next().unwrap_or_default());
        let always = name.ends_with('~');
        let name = name.strip_suffix('~').unwrap_or(name);
        let required = name.ends_with('!');
        let name = name.strip_suffix('!').unwrap_or(name);
        let list = matches!(
            self.expressions[usize::from(expression)],
            Expression::List(_) | Expression::Map(_)
        );
        let zero = match (always, required && list) {
            (true, _) => Some(Value::Object(Map::new())),
            (false, true) => Some(Value::Null),
            (false, false) => None,
        };
        let attributes = self.attributes(words.next().unwrap_or_default(), zero);
        Field {
            name,
            required,
            ty: TypeRef {
                expression,
                attributes,
            },
        }
    }

    fn attributes(&mut self, text: &'static str, zero: Option<Value>) -> u16 {
        let mut attributes = Attributes {
            zero,
            ..Attributes::default()
        };
        let mut rest = text;
        let mut keys: &'static [&'static str] = &[];
        let mut list = "";
        while !rest.is_empty() {
            if let Some(default) = rest.strip_prefix("default=") {
                // The last attribute; its JSON may contain spaces.
                attributes.default = serde_json::from_str(default).ok();
                break;
            }
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = after;
            match word.split_once('=').unwrap_or((word, "")) {
                ("list", kind) => list = kind,
                ("map", kind) => attributes.atomic = Some(kind == "atomic"),
                ("merge", key) => attributes.strategy.merge_key = Some(key),
                ("patch", strategies) => {
                    let has = |s: &str| strategies.split(',').any(|strategy| strategy == s);
                    attributes.strategy = Strategy {
                        merge: has("merge"),
                        replace: has("replace"),
                        retain_keys: has("retainKeys"),
                        ..attributes.strategy
                    };
                }
                ("keys", names) => keys = self.keys(names),
                (other, _) => unreachable!("unknown attribute {other}"),
            }
        }
        attributes.list = match list {
            "atomic" => Some(ListKind::Atomic),
            "set" => Some(ListKind::Set),
            "map" => Some(ListKind::Map(keys)),
            _ => None,
        };
        let known = self.attributes.iter().position(|a| *a == attributes);
        index(known.unwrap_or_else(|| {
            self.attributes.push(attributes);
            self.attributes.len() - 1
        }))
    }

    /// The same few combinations of keys recur: each is made once.
    fn keys(&self, names: &'static str) -> &'static [&'static str] {
        let wanted: Vec<&'static str> = names.split(',').collect();
        let known = self.attributes.iter().find_map(|a| match a.list {
            Some(ListKind::Map(keys)) if keys == wanted => Some(keys),
            _ => None,
        });
        known.unwrap_or_else(|| wanted.leak())
    }
}
