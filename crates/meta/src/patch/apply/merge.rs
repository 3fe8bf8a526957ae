//! Merging an applied configuration into the live object, and comparing two objects field by field.
//! Upstream: `structured-merge-diff/typed/merge.go` and `compare.go`.

use super::path::Step;
use super::set::Set;
use super::typed::{Walk, child, counts, element, step, walk};
use crate::patch::schema::{ListKind, Schema};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The live object with the configuration in it. Both have been validated; only the live one may repeat elements.
pub(super) fn merge<S: Schema>(schema: Option<S>, live: &Value, config: &Value) -> Value {
    match (walk(schema, live), walk(schema, config)) {
        (Walk::Map(old), Walk::Map(new)) if !old.is_empty() || !new.is_empty() => {
            let mut merged: Map<String, Value> = old.clone();
            for (key, new) in new {
                let value = match old.get(key) {
                    Some(old) => merge(child(schema, key), old, new),
                    None => new.clone(),
                };
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        (Walk::List(old, kind), Walk::List(new, _)) if !old.is_empty() || !new.is_empty() => {
            Value::Array(merge_lists(schema, kind, old, new))
        }
        // A null says nothing about what is in a structure that merges.
        (Walk::Map(old), _) if config.is_null() && !old.is_empty() => live.clone(),
        (Walk::List(old, _), _) if config.is_null() && !old.is_empty() => live.clone(),
        _ => config.clone(),
    }
}

/// Elements in the order of the configuration, those that only the live object has in between as they were.
fn merge_lists<S: Schema>(
    schema: Option<S>,
    kind: ListKind<'static>,
    old: &[Value],
    new: &[Value],
) -> Vec<Value> {
    let steps = |list: &[Value]| -> Vec<Option<Step>> {
        list.iter().map(|item| step(schema, kind, item).ok()).collect()
    };
    let (old_steps, new_steps) = (steps(old), steps(new));
    let in_old = counts(old_steps.iter().flatten());
    let in_new: HashSet<&Step> = new_steps.iter().flatten().collect();
    let old_items: HashMap<&Step, &Value> = old_steps
        .iter()
        .zip(old)
        .filter_map(|(s, item)| Some((s.as_ref()?, item)))
        .collect();
    let merged_item = |s: &Option<Step>, new: &Value| {
        // Repeated elements are not merged with the new one: it replaces them.
        let single = s.as_ref().filter(|s| in_old.get(s) == Some(&1));
        match single.and_then(|s| old_items.get(s)) {
            Some(old) => merge(element(schema), old, new),
            None => new.clone(),
        }
    };
    let is_new = |s: &Option<Step>| s.as_ref().is_some_and(|s| in_new.contains(s));

    let mut shared = new_steps
        .iter()
        .filter(|s| s.as_ref().is_some_and(|s| in_old.contains_key(s)));
    let mut next_shared = shared.next();
    let mut done: HashSet<&Option<Step>> = HashSet::new();
    let mut merged = Vec::with_capacity(old.len().max(new.len()));
    let (mut o, mut n) = (0, 0);
    while o < old.len() || n < new.len() {
        if o < old.len() && n < new.len() {
            let s = &old_steps[o];
            if *s == new_steps[n] {
                done.insert(s);
                merged.push(merged_item(s, &new[n]));
                o += 1;
                n += 1;
                next_shared = shared.next();
                continue;
            }
            if is_new(s) && next_shared.is_some_and(|next| next != s) {
                // Shared, but not the one whose turn it is.
                o += 1;
                continue;
            }
        }
        if o < old.len() {
            let s = &old_steps[o];
            if !is_new(s) {
                merged.push(old[o].clone());
                o += 1;
                continue;
            }
            if done.contains(s) {
                o += 1;
            }
        }
        if n < new.len() {
            let s = &new_steps[n];
            done.insert(s);
            merged.push(merged_item(s, &new[n]));
            n += 1;
            if next_shared == Some(s) {
                next_shared = shared.next();
            }
        }
    }
    merged
}

/// Which fields differ between two objects. No field is in two of the sets.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: Set,
    pub(super) modified: Set,
    pub(super) added: Set,
}

impl Comparison {
    /// The fields that the new object sets, and those that it no longer has.
    pub(super) fn into_changed_and_removed(mut self) -> (Set, Set) {
        self.added.extend(&self.modified);
        (self.added, self.removed)
    }

    /// Forgets fields, and all below them.
    pub(super) fn without(mut self, fields: &Set) -> Self {
        for set in [&mut self.removed, &mut self.modified, &mut self.added] {
            set.subtract_recursively(fields);
        }
        self
    }
}

pub(super) fn compare<S: Schema>(schema: S, old: &Value, new: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    compare_at(
        Some(schema),
        Some(old),
        Some(new),
        &mut Vec::new(),
        &mut comparison,
    );
    comparison
}

fn compare_at<S: Schema>(
    schema: Option<S>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Step>,
    comparison: &mut Comparison,
) {
    if old == new {
        return;
    }
    let walk_of = |value: Option<&'_ Value>| value.map_or(Shape::Absent, |v| Shape::of(schema, v));
    let (old_shape, new_shape) = (walk_of(old), walk_of(new));
    let structured = |shape: &Shape| matches!(shape, Shape::Map { .. } | Shape::List { .. });
    let empty = old_shape.is_empty() && new_shape.is_empty();
    if (!structured(&old_shape) && !structured(&new_shape)) || empty {
        match (old, new) {
            (None, Some(_)) => comparison.added.insert(path),
            (Some(_), None) => comparison.removed.insert(path),
            (Some(old), Some(new)) if old != new => comparison.modified.insert(path),
            _ => {}
        }
        return;
    }
    if matches!(old_shape, Shape::Map { .. }) || matches!(new_shape, Shape::Map { .. }) {
        compare_maps(schema, old, new, path, comparison);
    } else {
        compare_lists(schema, old, new, path, comparison);
    }
    match (old, new) {
        (None, _) => comparison.added.insert(path),
        (_, None) => comparison.removed.insert(path),
        _ => {}
    }
}

/// What [`compare_at`] must know of one side.
enum Shape {
    Absent,
    Leaf { null: bool },
    Map { empty: bool },
    List { empty: bool },
}

impl Shape {
    fn of<S: Schema>(schema: Option<S>, value: &Value) -> Self {
        match walk(schema, value) {
            Walk::Leaf => Self::Leaf {
                null: value.is_null(),
            },
            Walk::Map(object) => Self::Map {
                empty: object.is_empty(),
            },
            Walk::List(list, _) => Self::List {
                empty: list.is_empty(),
            },
        }
    }

    /// Empty structures and nulls are compared as leaves, which keeps them apart from each other.
    fn is_empty(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Leaf { null } => *null,
            Self::Map { empty } | Self::List { empty } => *empty,
        }
    }
}

fn compare_maps<S: Schema>(
    schema: Option<S>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Step>,
    comparison: &mut Comparison,
) {
    let none = Map::new();
    let (old_map, new_map) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
    let (old, new) = (old_map.unwrap_or(&none), new_map.unwrap_or(&none));
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let child = child(schema, key);
        // Only an object that is there can have a field that nobody set.
        let zero = if old_map.is_some() && new_map.is_some() {
            child.and_then(Schema::zero)
        } else {
            None
        };
        let (old, new) = (old.get(key).or(zero.as_ref()), new.get(key).or(zero.as_ref()));
        path.push(Step::field(key));
        compare_at(child, old, new, path, comparison);
        path.pop();
    }
}

fn compare_lists<S: Schema>(
    schema: Option<S>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Step>,
    comparison: &mut Comparison,
) {
    let kind = schema.map_or(ListKind::Atomic, Schema::list_kind);
    let mut groups: BTreeMap<Step, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for (list, is_old) in [(old, true), (new, false)] {
        for item in list.and_then(Value::as_array).into_iter().flatten() {
            if let Ok(step) = step(schema, kind, item) {
                let (olds, news) = groups.entry(step).or_default();
                if is_old { olds.push(item) } else { news.push(item) }
            }
        }
    }
    for (step, (old, new)) in groups {
        path.push(step);
        match (old.as_slice(), new.as_slice()) {
            ([] | [_], [] | [_]) => {
                let (old, new) = (old.first().copied(), new.first().copied());
                compare_at(element(schema), old, new, path, comparison);
            }
            // An element that is there several times is compared as one.
            ([_, _, ..], [_, _, ..]) => {
                if old != new {
                    comparison.modified.insert(path);
                }
            }
            ([_, _, ..], rest) => {
                if let Some(item) = rest.first() {
                    compare_at(element(schema), None, Some(item), path, comparison);
                }
                comparison.removed.insert(path);
            }
            (rest, _) => {
                if let Some(item) = rest.first() {
                    compare_at(element(schema), Some(item), None, path, comparison);
                }
                comparison.added.insert(path);
            }
        }
        path.pop();
    }
}
