//! Walks over an object along its schema: is it valid for apply, which fields does it have, and removing fields
//! from it. Upstream: `structured-merge-diff/typed`.

use super::path::{Step, display};
use super::set::Set;
use crate::patch::schema::{Kind, ListKind, ScalarKind, Schema};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// How a value is walked.
pub(super) enum Walk<'v> {
    /// Owned as one.
    Leaf,
    /// Key by key.
    Map(&'v Map<String, Value>),
    /// Element by element, each known by its [`Step`].
    List(&'v [Value], ListKind<'static>),
}

pub(super) fn walk<'v, S: Schema>(schema: Option<S>, value: &'v Value) -> Walk<'v> {
    let Some(schema) = schema else {
        return Walk::Leaf;
    };
    match value {
        Value::Object(object) if !schema.is_atomic() => Walk::Map(object),
        Value::Array(list) => match schema.list_kind() {
            ListKind::Atomic => Walk::Leaf,
            kind => Walk::List(list, kind),
        },
        _ => Walk::Leaf,
    }
}

pub(super) fn child<S: Schema>(schema: Option<S>, key: &str) -> Option<S> {
    schema.and_then(|s| s.child(key))
}

pub(super) fn element<S: Schema>(schema: Option<S>) -> Option<S> {
    schema.and_then(Schema::element)
}

/// How often each element is there.
pub(super) fn counts<'s>(steps: impl Iterator<Item = &'s Step>) -> HashMap<&'s Step, usize> {
    let mut counts = HashMap::new();
    for step in steps {
        *counts.entry(step).or_insert(0) += 1;
    }
    counts
}

/// The step to an element of a list that is a set or keyed.
pub(super) fn step<S: Schema>(
    schema: Option<S>,
    kind: ListKind<'static>,
    item: &Value,
) -> Result<Step, String> {
    let ListKind::Map(keys) = kind else {
        return match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
            scalar => Ok(Step::value(scalar)),
        };
    };
    let object = match item {
        Value::Object(object) => object,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let default = |key: &str| child(element(schema), key).and_then(Schema::default);
    let defaults: Vec<(&str, Option<Value>)> = keys
        .iter()
        .filter(|key| !object.contains_key(**key))
        .map(|key| (*key, default(key)))
        .collect();
    let given = keys.iter().filter_map(|key| Some((*key, object.get(*key)?)));
    let implied = defaults
        .iter()
        .filter_map(|(key, value)| Some((*key, value.as_ref()?)));
    let fields: Vec<(&str, &Value)> = given.chain(implied).collect();
    if fields.is_empty() {
        return Err(format!(
            "associative list with keys has an element that omits all key fields {} (and doesn't have default \
             values for any key fields)",
            quoted(keys)
        ));
    }
    Ok(Step::key(fields))
}

/// As Go prints a list of texts with `%q`.
fn quoted(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
    format!("[{}]", keys.join(" "))
}

/// What is wrong with an object that is to be applied: undeclared fields, wrong types, repeated elements.
pub(super) fn validate<S: Schema>(schema: S, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    validate_at(schema, value, &mut Vec::new(), &mut errors);
    errors
}

fn validate_at<S: Schema>(schema: S, value: &Value, path: &mut Vec<Step>, errors: &mut Vec<String>) {
    let complain = |path: &[Step], text: String, errors: &mut Vec<String>| {
        errors.push(if path.is_empty() {
            text
        } else {
            format!("{}: {text}", display(path))
        });
    };
    match (schema.kind(), value) {
        (_, Value::Null) | (Kind::Any, _) => {}
        (Kind::Struct | Kind::Map, Value::Object(object)) => {
            for (key, value) in object {
                path.push(Step::field(key));
                match schema.child(key) {
                    Some(child) => validate_at(child, value, path, errors),
                    None => complain(path, "field not declared in schema".to_owned(), errors),
                }
                path.pop();
            }
        }
        (Kind::List, Value::Array(list)) => {
            let Some(element) = schema.element() else {
                return;
            };
            let kind = schema.list_kind();
            let mut seen = HashSet::new();
            for (i, item) in list.iter().enumerate() {
                let step = match kind {
                    ListKind::Atomic => Ok(Step::parse(&format!("i:{i}")).expect("an index is a step")),
                    kind => step(Some(schema), kind, item),
                };
                let step = match step {
                    Ok(step) => step,
                    Err(error) => return complain(path, format!("element {i}: {error}"), errors),
                };
                if seen.contains(&step) {
                    complain(path, format!("duplicate entries for key {step}"), errors);
                }
                path.push(step.clone());
                validate_at(element, item, path, errors);
                path.pop();
                seen.insert(step);
            }
        }
        (Kind::Struct | Kind::Map, other) => {
            complain(path, format!("expected map, got &{{{}}}", go(other)), errors)
        }
        (Kind::List, other) => complain(path, format!("expected list, got &{{{}}}", go(other)), errors),
        (Kind::Scalar(scalar), other) => {
            if let Some(text) = scalar_mismatch(scalar, other) {
                complain(path, text, errors);
            }
        }
    }
}

fn scalar_mismatch(scalar: ScalarKind, value: &Value) -> Option<String> {
    let structure = value.is_object() || value.is_array();
    let expected = match scalar {
        ScalarKind::Numeric if !value.is_number() => {
            let ty = crate::patch::go::type_name(value);
            return Some(format!("expected numeric (int or float), got {ty}"));
        }
        ScalarKind::String if !value.is_string() => "string",
        ScalarKind::Boolean if !value.is_boolean() => "boolean",
        ScalarKind::Untyped if structure => "any scalar",
        _ => return None,
    };
    let found = go(value);
    Some(match expected {
        "string" => format!("expected string, got &value.valueUnstructured{{Value:{found}}}"),
        expected => format!("expected {expected}, got &{{{found}}}"),
    })
}

fn go(value: &Value) -> String {
    crate::patch::go::print(value)
}

/// The fields that an object has: its leaves, the elements of its lists, and the keys of its maps.
pub(super) fn field_set<S: Schema>(schema: S, value: &Value) -> Set {
    let mut set = Set::default();
    collect(Some(schema), value, &mut Vec::new(), &mut set);
    set
}

fn collect<S: Schema>(schema: Option<S>, value: &Value, path: &mut Vec<Step>, set: &mut Set) {
    match walk(schema, value) {
        Walk::Leaf => set.insert(path),
        Walk::Map(object) => {
            let is_struct = schema.is_some_and(|s| s.kind() == Kind::Struct);
            for (key, value) in object {
                path.push(Step::field(key));
                let child = child(schema, key);
                collect(child, value, path, set);
                let empty = value.as_object().is_some_and(Map::is_empty);
                if empty || value.is_null() || !is_struct || child.is_none() {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Walk::List(list, kind) => {
            let steps: Vec<Option<Step>> = list.iter().map(|item| step(schema, kind, item).ok()).collect();
            let counts = counts(steps.iter().flatten());
            for (item, step) in list.iter().zip(&steps) {
                let Some(step) = step else {
                    continue;
                };
                path.push(step.clone());
                set.insert(path);
                // Of an element that is there twice nobody owns more than the element.
                if counts.get(step) == Some(&1) {
                    collect(element(schema), item, path, set);
                }
                path.pop();
            }
        }
    }
}

/// The object without the fields in a set. Containers that become empty go too, unless they are in `owned`: then
/// somebody wants them even if empty. `None` if nothing remains.
pub(super) fn remove<S: Schema>(
    schema: Option<S>,
    value: &Value,
    fields: &Set,
    owned: &Set,
) -> Option<Value> {
    let nothing = Set::default();
    let inside = |schema: Option<S>, step: &Step, value: &Value| -> Option<Value> {
        if fields.has(step) {
            return None;
        }
        let Some(fields) = fields.below(step) else {
            return Some(value.clone());
        };
        let left = remove(schema, value, fields, owned.below(step).unwrap_or(&nothing));
        left.or_else(|| owned.has(step).then(|| emptied(value)))
    };
    match walk(schema, value) {
        Walk::Leaf => match (value, schema.map(Schema::kind)) {
            // An atomic structure in which something is to be removed is removed.
            (Value::Object(_), Some(Kind::Struct | Kind::Map)) | (Value::Array(_), Some(Kind::List)) => None,
            _ => Some(value.clone()),
        },
        Walk::Map(object) => {
            let kept = object.iter().filter_map(|(key, value)| {
                let left = inside(child(schema, key), &Step::field(key), value)?;
                Some((key.clone(), left))
            });
            let kept: Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Walk::List(list, kind) => {
            let kept = list.iter().filter_map(|item| match step(schema, kind, item) {
                Ok(step) => inside(element(schema), &step, item),
                Err(_) => Some(item.clone()),
            });
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
    }
}

fn emptied(value: &Value) -> Value {
    match value {
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Object(Map::new()),
    }
}
