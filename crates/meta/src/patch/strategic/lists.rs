//! Merging lists: elements with the same key are merged, others added; then the order of the patch is enforced
//! and elements that only the server has keep their place among them as well as possible.

use super::{Object, PATCH, Result, Schema, StrategicError, go, go_type};
use crate::patch::schema::Strategy;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// Merges `new` into `old`, or replaces it where the schema has no merge strategy. Answers the order of the server
/// that `$setElementOrder` goes by: that of `old`, but with an added element in each place that a deletion freed.
/// Upstream has that order from reusing the list's memory, and users see it.
pub(super) fn merge<S: Schema>(
    schema: S,
    strategy: Strategy<'static>,
    old: &mut Vec<Value>,
    new: Vec<Value>,
) -> Result<Vec<Value>> {
    let before = old.clone();
    if !strategy.merge {
        *old = new;
        return Ok(before);
    }
    if old.is_empty() && new.is_empty() {
        return Ok(before);
    }
    if !elements_are_objects(old.iter().chain(&new))? {
        let mut seen = HashSet::new();
        let all = old.iter().chain(&new);
        let merged = all.filter(|value| seen.insert(*value)).cloned().collect();
        *old = in_order(merged, &new, old, Strategy::default())?;
        return Ok(before);
    }
    let Some(key) = strategy.merge_key else {
        return Err(StrategicError::NotMergeable(schema.type_name().to_owned()));
    };
    let element = schema.element().unwrap_or(schema);
    let Some(new) = directives(old, new, key)? else {
        return Ok(before);
    };
    let mut merged = old.clone();
    let mut places: HashMap<Value, usize> = HashMap::new();
    for (place, value) in merged.iter().enumerate() {
        if let Some(id) = value.get(key) {
            // Of elements with the same key the first is merged.
            places.entry(id.clone()).or_insert(place);
        }
    }
    for value in &new {
        let id = key_of(value, key)?;
        let patch = object(value)?;
        match places.get(id).and_then(|place| merged.get_mut(*place)) {
            Some(Value::Object(found)) => super::merge(element, found, patch.clone())?,
            _ => {
                places.insert(id.clone(), merged.len());
                merged.push(value.clone());
            }
        }
    }
    let server = merged.iter().take(before.len()).cloned().collect();
    *old = in_order(merged, &new, old, strategy)?;
    Ok(server)
}

/// Obeys the elements of a patch that have a `$patch`, and answers those still to be merged, if any are: after
/// `replace`, the others are the list.
fn directives(old: &mut Vec<Value>, new: Vec<Value>, key: &str) -> Result<Option<Vec<Value>>> {
    let mut replace = false;
    let mut deleted = HashSet::new();
    let mut plain = Vec::with_capacity(new.len());
    for value in new {
        match value.get(PATCH) {
            None => plain.push(value),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    deleted.insert(key_of(&value, key)?.clone());
                }
                Some("replace") => replace = true,
                Some("merge") => return Err(StrategicError::MergeDirective),
                _ => {
                    return Err(StrategicError::UnknownDirective {
                        directive: go(directive),
                        map: go(&value),
                    });
                }
            },
        }
    }
    old.retain(|value| value.get(key).is_none_or(|id| !deleted.contains(id)));
    if replace {
        *old = plain;
        return Ok(None);
    }
    Ok(Some(plain))
}

/// Whether all elements are objects; they must be of one type.
fn elements_are_objects<'v>(values: impl Iterator<Item = &'v Value>) -> Result<bool> {
    let mut first: Option<&Value> = None;
    for value in values {
        if value.is_array() {
            return Err(StrategicError::ListOfLists);
        }
        let first = *first.get_or_insert(value);
        if first.is_object() != value.is_object() {
            return Err(StrategicError::Type {
                expected: go_type(first),
                actual: go_type(value),
            });
        }
    }
    Ok(first.is_some_and(Value::is_object))
}

fn object(value: &Value) -> Result<&Object> {
    value.as_object().ok_or_else(|| StrategicError::Type {
        expected: "map[string]interface {}",
        actual: go_type(value),
    })
}

/// The value of the merge key of an element, which must have one.
fn key_of<'v>(value: &'v Value, key: &str) -> Result<&'v Value> {
    let map = object(value)?;
    map.get(key).ok_or_else(|| StrategicError::NoMergeKey {
        map: go(value),
        key: key.to_owned(),
    })
}

/// What tells elements apart: the value of the merge key, or the scalar itself.
fn identity<'v>(value: &'v Value, strategy: Strategy<'_>) -> Result<&'v Value> {
    match strategy.merge_key {
        Some(key) => key_of(value, key),
        None => Ok(value),
    }
}

fn identities<'v>(values: &'v [Value], strategy: Strategy<'_>) -> Result<Vec<&'v Value>> {
    values.iter().map(|v| identity(v, strategy)).collect()
}

/// The elements of a patch, deletions aside, must come in the order that `$setElementOrder` gives.
pub(super) fn check_order(patch: &[Value], order: &[Value], strategy: Strategy<'static>) -> Result<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = identities(order, strategy)?.into_iter();
    for value in patch.iter().filter(|v| v.get(PATCH).is_none()) {
        let id = identity(value, strategy)?;
        if !rest.any(|candidate| candidate == id) {
            return Err(StrategicError::OrderMismatch {
                patch: go(&Value::Array(patch.to_vec())),
                order: go(&Value::Array(order.to_vec())),
            });
        }
    }
    Ok(())
}

/// Orders a merged list: elements named by `order` as it says, the others as `server` had them, interleaved by
/// their places in `server` where both are found there.
pub(super) fn in_order(
    merged: Vec<Value>,
    order: &[Value],
    server: &[Value],
    strategy: Strategy<'static>,
) -> Result<Vec<Value>> {
    let places = |list| -> Result<HashMap<&Value, usize>> {
        let ids: Vec<&Value> = identities(list, strategy)?;
        // From the end, so that of equal elements the first counts.
        Ok(ids
            .into_iter()
            .enumerate()
            .rev()
            .map(|(place, id)| (id, place))
            .collect())
    };
    let (order, server) = (places(order)?, places(server)?);
    // Every element is checked for its key before any is moved.
    identities(&merged, strategy)?;
    let place = |places: &HashMap<&Value, usize>, value: &Value| {
        identity(value, strategy)
            .ok()
            .and_then(|id| places.get(id).copied())
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|value| place(&order, value).is_some());
    named.sort_by_key(|value| place(&order, value));
    others.sort_by_key(|value| place(&server, value).unwrap_or(usize::MAX));

    let mut result = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (Some(other), Some(name)) => match (place(&server, other), place(&server, name)) {
                (Some(other), Some(name)) => other < name,
                _ => false,
            },
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return Ok(result),
        };
        result.extend(if other_first { others.next() } else { named.next() });
    }
}
