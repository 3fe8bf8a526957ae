//! What a DELETE does to an object: mark it, wait, or remove it. Pure.
//! Upstream: `rest.BeforeDelete`, `registry.Store.Delete`, the namespace registry.

use super::metadata::{self, metadata_mut};
use super::options::{DeleteOptions, Propagation};
use coracle_api::resources::ApiResource;
use coracle_api::strategy::Strategy;
use coracle_meta::object::ObjectExt;
use coracle_meta::timestamp;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The next step of a deletion.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// It is under way and this request does not change it.
    Pending,
    /// Store this.
    Mark(Value),
    /// Remove the object.
    Remove,
}

/// Decides the step.
pub(crate) fn step(
    resource: &ApiResource,
    strategy: &dyn Strategy,
    old: &Value,
    options: &DeleteOptions,
    now: Timestamp,
) -> Step {
    if resource.group.is_empty() && resource.kind == "Namespace" {
        return namespace(resource, old, options, now);
    }
    let mut object = old.clone();
    match graceful(strategy, &mut object, options.grace_period, now) {
        Grace::Pending => Step::Pending,
        Grace::Started(seconds) => {
            let changed = set_finalizers(resource, &mut object, options);
            if seconds > 0 || changed || !metadata::finalizers(&object).is_empty() {
                Step::Mark(object)
            } else {
                Step::Remove
            }
        }
        Grace::None => {
            set_finalizers(resource, &mut object, options);
            if metadata::finalizers(&object).is_empty() {
                return Step::Remove;
            }
            mark(&mut object, now);
            if object == *old {
                Step::Pending
            } else {
                Step::Mark(object)
            }
        }
    }
}

enum Grace {
    /// The kind has no grace period, or it is over.
    None,
    /// It runs already.
    Pending,
    /// It has been set, in seconds.
    Started(i64),
}

fn graceful(strategy: &dyn Strategy, object: &mut Value, requested: Option<i64>, now: Timestamp) -> Grace {
    let Some(seconds) = strategy.grace_period(object, requested) else {
        return Grace::None;
    };
    if !object.is_terminating() {
        start(object, now, seconds);
        count_generation(object);
        return Grace::Started(seconds);
    }
    let running = match object.int_at(&["metadata", "deletionGracePeriodSeconds"]) {
        None | Some(0) => return Grace::None,
        Some(seconds) => seconds,
    };
    // A period that runs can only be shortened.
    let Some(mut shorter) = requested.filter(|seconds| *seconds < running) else {
        return Grace::Pending;
    };
    let deadline = object
        .str_at(&["metadata", "deletionTimestamp"])
        .and_then(timestamp::parse)
        .unwrap_or(now);
    let started = deadline - SignedDuration::from_secs(running);
    let mut deadline = started + SignedDuration::from_secs(shorter);
    if deadline < now {
        deadline = now;
        if shorter != 0 {
            shorter = 1;
        }
    }
    start(object, deadline - SignedDuration::from_secs(shorter), shorter);
    Grace::Started(shorter)
}

fn start(object: &mut Value, from: Timestamp, seconds: i64) {
    let deadline = from
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX);
    let metadata = metadata_mut(object);
    metadata.insert(
        "deletionTimestamp".to_owned(),
        timestamp::format_time(deadline).into(),
    );
    metadata.insert("deletionGracePeriodSeconds".to_owned(), seconds.into());
}

/// Starts a deletion that only finalizers hold up. Upstream: `markAsDeleting`.
fn mark(object: &mut Value, now: Timestamp) {
    if !object.is_terminating() {
        count_generation(object);
    }
    let later = object
        .str_at(&["metadata", "deletionTimestamp"])
        .and_then(timestamp::parse)
        .is_none_or(|deadline| deadline > now);
    let metadata = metadata_mut(object);
    if later {
        metadata.insert("deletionTimestamp".to_owned(), timestamp::format_time(now).into());
    }
    metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
}

fn count_generation(object: &mut Value) {
    let generation = object.generation();
    if generation > 0 {
        metadata_mut(object).insert("generation".to_owned(), (generation + 1).into());
    }
}

/// Adds and removes the garbage collector's finalizers; returns whether any changed.
/// Upstream: `deletionFinalizersForGarbageCollection`.
fn set_finalizers(resource: &ApiResource, object: &mut Value, options: &DeleteOptions) -> bool {
    let old: Vec<String> = metadata::finalizers(object)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let has = |name: &str| old.iter().any(|finalizer| finalizer == name);
    let policy = match options.propagation {
        _ if resource.plural == "events" => Propagation::Background,
        Some(policy) => policy,
        None if has(ORPHAN) => Propagation::Orphan,
        None if has(FOREGROUND) => Propagation::Foreground,
        None => default_policy(resource),
    };
    let mut new: Vec<String> = old
        .iter()
        .filter(|f| *f != ORPHAN && *f != FOREGROUND)
        .cloned()
        .collect();
    match policy {
        Propagation::Background => {}
        Propagation::Foreground => new.push(FOREGROUND.to_owned()),
        Propagation::Orphan => new.push(ORPHAN.to_owned()),
    }
    let changed = new.len() != old.len() || new.iter().any(|finalizer| !old.contains(finalizer));
    if changed {
        let metadata = metadata_mut(object);
        if new.is_empty() {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers".to_owned(), new.into());
        }
    }
    changed
}

/// Two old APIs orphan by default, as they did before there was a garbage collector.
fn default_policy(resource: &ApiResource) -> Propagation {
    match (resource.group, resource.plural) {
        ("", "replicationcontrollers") | ("batch", "jobs") => Propagation::Orphan,
        _ => Propagation::Background,
    }
}

/// Whether `spec.finalizers` of a namespace is not empty: its contents are not gone yet.
pub(crate) fn has_spec_finalizers(namespace: &Value) -> bool {
    let finalizers = namespace.at(&["spec", "finalizers"]).and_then(Value::as_array);
    finalizers.is_some_and(|finalizers| !finalizers.is_empty())
}

/// A namespace is marked first, emptied by its controller, and removed by the update that takes its last finalizer.
fn namespace(resource: &ApiResource, old: &Value, options: &DeleteOptions, now: Timestamp) -> Step {
    let mut object = old.clone();
    set_finalizers(resource, &mut object, options);
    if !old.is_terminating() {
        metadata_mut(&mut object).insert("deletionTimestamp".to_owned(), timestamp::format_time(now).into());
        object["status"]["phase"] = "Terminating".into();
        return Step::Mark(object);
    }
    if has_spec_finalizers(old) || !metadata::finalizers(old).is_empty() {
        return Step::Pending;
    }
    Step::Remove
}
