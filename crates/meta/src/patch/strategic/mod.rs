//! Strategic merge patch, `application/strategic-merge-patch+json`: like a JSON merge patch, but lists whose
//! schema says so are merged by key, and directives in the patch (`$patch`, `$retainKeys`,
//! `$setElementOrder/FIELD`, `$deleteFromPrimitiveList/FIELD`) say what merging cannot.
//! Upstream: `k8s.io/apimachinery/pkg/util/strategicpatch`.

mod lists;
#[cfg(test)]
mod tests;

use super::go::{print as go, type_name as go_type};
use super::schema::{Schema, Strategy};
use serde_json::{Map, Value};
use std::collections::HashSet;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

type Object = Map<String, Value>;

/// Why a strategic merge patch does not apply; the texts are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategicError {
    /// The patch is not an object.
    #[error("invalid JSON document")]
    NotAnObject,
    /// `$patch` is neither `replace` nor `delete`.
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective {
        /// The value of `$patch`.
        directive: String,
        /// The object that has it.
        map: String,
    },
    /// `$patch: merge` in a list.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    /// An element of a merged list lacks the key.
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The element.
        map: String,
        /// The key.
        key: String,
    },
    /// A list of objects is to be merged without a key.
    #[error("cannot merge lists without merge key for {0}")]
    NotMergeable(String),
    /// `$deleteFromPrimitiveList` without a field or not a list.
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    /// `$retainKeys` is not a list of all keys in the patch.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$setElementOrder` without a field or not a list.
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
    /// The patch's elements come in another order than `$setElementOrder` says.
    #[error("The order in patch list:\n{patch}\n doesn't match {SET_ELEMENT_ORDER} list:\n{order}\n")]
    OrderMismatch {
        /// The list in the patch.
        patch: String,
        /// The order it gives.
        order: String,
    },
    /// A list with elements of different types, or of a type that cannot be there.
    #[error("expected a {expected}, but received a {actual}")]
    Type {
        /// Go's name of the expected type.
        expected: &'static str,
        /// Go's name of the type that came.
        actual: &'static str,
    },
    /// Lists of lists.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// The type has no such field.
    #[error("unable to find api field in struct {owner} for the json field {field:?}")]
    UnknownField {
        /// The type.
        owner: String,
        /// The field.
        field: String,
    },
}

type Result<T> = std::result::Result<T, StrategicError>;

/// Merges `patch` into `original`. On an error `original` is left half-merged.
pub fn apply<S: Schema>(schema: S, original: &mut Value, patch: &Value) -> Result<()> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(StrategicError::NotAnObject);
    };
    merge(schema, original, patch.clone())
}

/// Schema and strategy of a field; what is below a field that the schema does not describe is replaced as a whole.
fn field<S: Schema>(schema: S, key: &str) -> Result<(S, Strategy<'static>)> {
    if let Some(child) = schema.child(key) {
        return Ok((child, child.strategy()));
    }
    if schema.is_atomic() {
        let replace = Strategy {
            replace: true,
            ..Strategy::default()
        };
        return Ok((schema, replace));
    }
    Err(StrategicError::UnknownField {
        owner: schema.type_name().to_owned(),
        field: key.to_owned(),
    })
}

fn merge<S: Schema>(schema: S, original: &mut Object, mut patch: Object) -> Result<()> {
    if let Some(directive) = patch.remove(PATCH) {
        match directive.as_str() {
            Some("replace") => *original = patch,
            Some("delete") => original.clear(),
            _ => {
                let map = go(&Value::Object(patch));
                let directive = go(&directive);
                return Err(StrategicError::UnknownDirective { directive, map });
            }
        }
        return Ok(());
    }
    retain_keys(original, &mut patch)?;
    element_orders(schema, original, &mut patch)?;

    for (key, value) in patch {
        if let Some(field) = parallel(&key, DELETE_FROM_PRIMITIVE_LIST, StrategicError::PrimitiveList)? {
            delete_from_primitive_list(original, field, &value)?;
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        match (original.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let (child, strategy) = field(schema, &key)?;
                if strategy.replace {
                    *old = new;
                } else {
                    merge(child, old, new)?;
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let (child, strategy) = field(schema, &key)?;
                lists::merge(child, strategy, old, new)?;
            }
            (_, mut new) => {
                discard_nulls(&mut new);
                if remove_directives(&mut new) {
                    original.insert(key, new);
                } else {
                    original.remove(&key);
                }
            }
        }
    }
    Ok(())
}

/// The field of a key `PREFIX/FIELD`.
fn parallel<'k>(key: &'k str, prefix: &str, error: StrategicError) -> Result<Option<&'k str>> {
    let Some(rest) = key.strip_prefix(prefix) else {
        return Ok(None);
    };
    rest.strip_prefix('/').map(Some).ok_or(error)
}

fn delete_from_primitive_list(original: &mut Object, field: &str, values: &Value) -> Result<()> {
    let Some(list) = original.get_mut(field) else {
        return Ok(());
    };
    let Value::Array(values) = values else {
        return Err(StrategicError::PrimitiveList);
    };
    if let Value::Array(list) = list {
        let values: HashSet<&Value> = values.iter().collect();
        list.retain(|value| !values.contains(value));
    }
    Ok(())
}

/// `$retainKeys` lists what may remain of an object whose members exclude each other, such as a volume's source.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<()> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keys) = keys else {
        return Err(StrategicError::RetainKeys);
    };
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let retained = |key: &str| keys.contains(key);
    let is_directive =
        |key: &str| key.starts_with(DELETE_FROM_PRIMITIVE_LIST) || key.starts_with(SET_ELEMENT_ORDER);
    for (key, value) in patch.iter() {
        if !value.is_null() && !is_directive(key) && !retained(key) {
            return Err(StrategicError::RetainKeys);
        }
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

/// Handles `$setElementOrder/FIELD` together with FIELD, which leaves the patch.
fn element_orders<S: Schema>(schema: S, original: &mut Object, patch: &mut Object) -> Result<()> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(SET_ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let order = patch
            .remove(&directive)
            .map(list)
            .transpose()?
            .unwrap_or_default();
        let Some(name) = parallel(&directive, SET_ELEMENT_ORDER, StrategicError::SetElementOrder)? else {
            continue;
        };
        let old = original.get(name).cloned().map(list).transpose()?;
        let new = match patch.get(name) {
            Some(value) => Some(list(value.clone())?),
            None => None,
        };
        let (child, strategy) = field(schema, name)?;
        lists::check_order(new.as_deref().unwrap_or_default(), &order, strategy)?;
        let (merged, server) = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => (old.clone(), old),
            (None, Some(new)) => {
                let mut added = Value::Array(new);
                remove_directives(&mut added);
                (list(added)?, Vec::new())
            }
            (Some(mut old), Some(new)) => {
                let server = lists::merge(child, strategy, &mut old, new)?;
                (old, server)
            }
        };
        patch.remove(name);
        let merged = lists::in_order(merged, &order, &server, strategy)?;
        original.insert(name.to_owned(), Value::Array(merged));
    }
    Ok(())
}

fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(StrategicError::Type {
            expected: "[]interface {}",
            actual: go_type(&other),
        }),
    }
}

/// Removes nulls from a value that is added: there is nothing for them to delete.
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(discard_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// Removes objects with a `$patch` from a value that is added; false if the value itself is one.
fn remove_directives(value: &mut Value) -> bool {
    match value {
        Value::Object(object) => {
            if object.contains_key(PATCH) {
                return false;
            }
            object.retain(|_, value| remove_directives(value));
        }
        Value::Array(list) => list.retain_mut(remove_directives),
        _ => {}
    }
    true
}
