//! Server-side apply, `application/apply-patch+yaml`, and the tracking of who wrote which fields on ordinary
//! writes. Upstream: `structured-merge-diff/merge` and `k8s.io/apimachinery/pkg/util/managedfields`.
//!
//! Fields owned in another version of a kind are taken at their names; upstream converts the object first. The
//! built-in kinds have one version each, but for those of `autoscaling` and events.

mod managers;
mod merge;
mod path;
mod set;
#[cfg(test)]
mod tests;
mod typed;

pub use managers::{ManagerId, Managers, Operation, Owned, decode, encode};
pub use path::Step;
pub use set::Set;

use super::schema::Schema;
use crate::object::ObjectExt;
use crate::status::{Status, StatusCause, StatusDetails};
use crate::timestamp;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// The manager of what was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// What `kubectl apply` without `--server-side` remembers.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who writes, and when.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager of the request; empty is `unknown`.
    pub manager: &'a str,
    /// The subresource written to, or empty.
    pub subresource: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// Paths that this request cannot change, such as `status` in the object itself: they are not owned.
    pub ignored: &'a [&'a [&'a str]],
    /// The time of the request.
    pub now: Timestamp,
}

impl Writer<'_> {
    fn id(&self, operation: Operation) -> ManagerId {
        ManagerId::new(self.manager, operation, self.api_version, self.subresource)
    }

    fn ignored(&self) -> Set {
        Set::of_fields(self.ignored)
    }

    fn time(&self) -> Option<String> {
        Some(timestamp::format_time(self.now))
    }
}

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: ManagerId,
    /// The field.
    pub path: Vec<Step>,
}

/// Why a configuration is not applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the schema.
    #[error("failed to create typed patch object ({subject}): {errors}")]
    Invalid {
        /// Namespace, name and kind of the object.
        subject: String,
        /// What is wrong with it.
        errors: String,
    },
    /// The live object's managed fields cannot be read.
    #[error("failed to decode managed fields: {0}")]
    ManagedFields(String),
    /// Others own some of the fields.
    #[error("{}", message(.0))]
    Conflict(Vec<Conflict>),
}

impl ApplyError {
    /// The answer to the request.
    pub fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            Self::BadRequest(_) => Status::bad_request(text),
            // Upstream lets these through as errors without a reason.
            Self::Invalid { .. } | Self::ManagedFields(_) => Status::failure(500, "", text),
            Self::Conflict(conflicts) => {
                let mut status = Status::failure(409, "Conflict", text);
                let causes = conflicts.iter().map(|conflict| StatusCause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: format!("conflict with {}", describe(&conflict.manager)),
                    field: path::display(&conflict.path),
                });
                status.details = Some(StatusDetails {
                    causes: causes.collect(),
                    ..StatusDetails::default()
                });
                status
            }
        }
    }
}

fn describe(id: &ManagerId) -> String {
    let mut text = format!("{:?}", id.manager);
    if !id.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", id.subresource));
    }
    if id.operation == Operation::Update {
        text.push_str(&format!(" using {}", id.api_version));
    }
    text
}

fn message(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        let path = path::display(&conflict.path);
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {path}",
            describe(&conflict.manager)
        );
    }
    let mut lines = Vec::new();
    let mut manager = None;
    for conflict in conflicts {
        if manager != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", describe(&conflict.manager)));
            manager = Some(&conflict.manager);
        }
        lines.push(format!("- {}", path::display(&conflict.path)));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}

/// Fields that identify the object or that only the server writes: nobody owns them.
fn never_owned() -> Set {
    Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
}

/// Records in `new` what an ordinary write changes of `live`; `live` is `None` for a create. Fields that cannot be
/// read are forgotten, as upstream does.
pub fn track<S: Schema>(schema: S, live: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let nothing = Value::Object(Map::new());
    let creating = live.is_none();
    let live = live.unwrap_or(&nothing);
    let mut managers = managers_of_write(live, new, writer);
    remove_managed_fields(new);
    // An object whose managers have been removed stays without.
    if creating || !managers.is_empty() {
        record(schema, live, new, &mut managers, writer);
        managers::cap(&mut managers);
    }
    encode(new, &managers);
}

/// The managers before an ordinary write: a client may rewrite or clear them, but not through a subresource and
/// not by leaving them out.
fn managers_of_write(live: &Value, new: &Value, writer: &Writer<'_>) -> Managers {
    let of = |object: &Value| {
        object
            .at(&["metadata", "managedFields"])
            .cloned()
            .unwrap_or(Value::Null)
    };
    let (live, new) = (of(live), of(new));
    if writer.subresource.is_empty() {
        let cleared = match new.as_array().map(Vec::as_slice) {
            Some([]) => true,
            Some([one]) => one.as_object().is_some_and(Map::is_empty),
            _ => false,
        };
        if cleared {
            return Managers::new();
        }
        if let Ok(managers) = decode(&new)
            && !managers.is_empty()
        {
            return managers;
        }
    }
    decode(&live).unwrap_or_default()
}

fn remove_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Gives the writer the fields that differ, and takes them from the others.
fn record<S: Schema>(schema: S, live: &Value, new: &Value, managers: &mut Managers, writer: &Writer<'_>) {
    let comparison = merge::compare(schema, live, new).without(&writer.ignored());
    let (mut changed, removed) = comparison.into_changed_and_removed();
    disown(managers, &changed, &removed, None);
    changed.subtract(&never_owned());
    if changed.is_empty() {
        return;
    }
    let owned = managers
        .entry(writer.id(Operation::Update))
        .or_insert_with(|| Owned {
            fields: Set::default(),
            api_version: writer.api_version.to_owned(),
            time: None,
        });
    owned.time = writer.time();
    if owned.fields.is_empty() {
        owned.fields = changed;
    } else {
        owned.fields.extend(&changed);
    }
}

/// Takes fields from every manager but one; who owns nothing any more is forgotten.
fn disown(managers: &mut Managers, changed: &Set, removed: &Set, except: Option<&ManagerId>) {
    for (id, owned) in managers.iter_mut() {
        if Some(id) != except {
            owned.fields.subtract(changed);
            owned.fields.subtract(removed);
        }
    }
    managers.retain(|_, owned| !owned.fields.is_empty());
}

/// Applies a configuration to the live object; `live` is `None` if there is none yet. With `force`, fields that
/// others own are taken from them. Answers the new object with its managed fields, not yet defaulted.
pub fn apply<S: Schema>(
    schema: S,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    check(schema, config, writer)?;
    let mut live = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let entries = live
        .at(&["metadata", "managedFields"])
        .cloned()
        .unwrap_or(Value::Null);
    let mut managers = decode(&entries).map_err(ApplyError::ManagedFields)?;
    remove_managed_fields(&mut live);
    if managers.is_empty() {
        let before = Writer {
            manager: BEFORE_FIRST_APPLY,
            ..*writer
        };
        record(schema, &Value::Object(Map::new()), &live, &mut managers, &before);
    }
    let apply_with = |force| apply_to(schema, &live, config, managers.clone(), writer, force);
    let result = match apply_with(force) {
        Err(ApplyError::Conflict(conflicts)) if writer.manager == "kubectl" => {
            match conflicts_not_applied_before(schema, &live, conflicts, writer) {
                conflicts if conflicts.is_empty() => apply_with(true),
                conflicts => Err(ApplyError::Conflict(conflicts)),
            }
        }
        result => result,
    };
    let (mut object, managers) = result?;
    if writer.manager == "kubectl" && !object.annotation(LAST_APPLIED).unwrap_or_default().is_empty() {
        remember_as_applied(&mut object, config);
    }
    encode(&mut object, &managers);
    Ok(object)
}

/// Puts the managed fields of `live` back if nothing but their times differs, so that a write that changes nothing
/// is one. Upstream: `IgnoreManagedFieldsTimestampsTransformer`.
pub fn ignore_times(live: &Value, new: &mut Value) {
    const FIELDS: &str = "/metadata/managedFields";
    fn without_times(object: &Value) -> Value {
        let mut object = object.clone();
        for entry in object
            .pointer_mut(FIELDS)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            entry.as_object_mut().map(|entry| entry.remove("time"));
        }
        object
    }
    if let (Some(old), true) = (live.pointer(FIELDS), without_times(live) == without_times(new))
        && let Some(new) = new.pointer_mut(FIELDS)
    {
        *new = old.clone();
    }
}

fn check<S: Schema>(schema: S, config: &Value, writer: &Writer<'_>) -> Result<(), ApplyError> {
    let version = config.str_at(&["apiVersion"]).unwrap_or_default();
    if version != writer.api_version {
        return Err(ApplyError::BadRequest(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
            writer.api_version
        )));
    }
    if config
        .at(&["metadata", "managedFields"])
        .is_some_and(|v| !v.is_null())
    {
        return Err(ApplyError::BadRequest(
            "metadata.managedFields must be nil".to_owned(),
        ));
    }
    let errors = typed::validate(schema, config);
    let errors = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let kind = config.str_at(&["kind"]).unwrap_or_default();
    Err(ApplyError::Invalid {
        subject: format!("{}/{}; {version}, Kind={kind}", config.namespace(), config.name()),
        errors,
    })
}

fn apply_to<S: Schema>(
    schema: S,
    live: &Value,
    config: &Value,
    mut managers: Managers,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Value, Managers), ApplyError> {
    let id = writer.id(Operation::Apply);
    let ignored = writer.ignored();
    let merged = merge::merge(Some(schema), live, config);
    let mut fields = typed::field_set(schema, config);
    fields.subtract_recursively(&ignored);
    let owned = Owned {
        fields,
        api_version: writer.api_version.to_owned(),
        time: None,
    };
    let last = managers.insert(id.clone(), owned);
    let new = match &last {
        Some(last) if !last.fields.is_empty() => prune(schema, &merged, &managers, &last.fields),
        _ => merged,
    };

    let comparison = merge::compare(schema, live, &new).without(&ignored);
    let (changed, removed) = comparison.into_changed_and_removed();
    let mut conflicts = Vec::new();
    for (other, owned) in managers.iter().filter(|(other, _)| **other != id) {
        let paths = owned.fields.intersection(&changed).paths();
        conflicts.extend(paths.into_iter().map(|path| Conflict {
            manager: other.clone(),
            path,
        }));
    }
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflict(conflicts));
    }
    disown(&mut managers, &changed, &removed, Some(&id));

    if let Some(owned) = managers.get_mut(&id) {
        owned.fields.subtract(&never_owned());
        owned.time = if new == *live {
            last.and_then(|last| last.time)
        } else {
            writer.time()
        };
    }
    managers.retain(|_, owned| !owned.fields.is_empty());
    Ok((new, managers))
}

/// Removes what this manager applied last time and does not apply any more, unless somebody else owns it. A structure
/// that is emptied by that, but owned, stays as an empty one; upstream leaves a null.
fn prune<S: Schema>(schema: S, merged: &Value, managers: &Managers, last: &Set) -> Value {
    let named = |set: &Set| set.with_named_fields(Some(schema));
    let fields_of = |value: &Value| named(&typed::field_set(schema, value));
    let mut owned = Set::default();
    for manager in managers.values() {
        owned.extend(&manager.fields);
    }
    let without = |fields: &Set| {
        let left = typed::remove(Some(schema), merged, fields, &owned);
        left.unwrap_or_else(|| Value::Object(Map::new()))
    };
    let merged_fields = fields_of(merged);
    let last = named(last);

    let pruned = without(&last);
    let kept = fields_of(&pruned).union(&named(&owned));
    let pruned = without(&merged_fields.difference(&kept));
    // What vanished with its surroundings but was never this manager's comes back.
    without(&merged_fields.difference(&fields_of(&pruned)).intersection(&last))
}

/// The conflicts over fields that an earlier `kubectl apply` of the client did not set to what they are: the others
/// are kubectl's own, so that users can go over to applying on the server.
fn conflicts_not_applied_before<S: Schema>(
    schema: S,
    live: &Value,
    conflicts: Vec<Conflict>,
    writer: &Writer<'_>,
) -> Vec<Conflict> {
    let applied = live.annotation(LAST_APPLIED).unwrap_or_default();
    let Ok(applied) = serde_json::from_str::<Value>(applied) else {
        return conflicts;
    };
    if applied.str_at(&["apiVersion"]) != Some(writer.api_version)
        || !typed::validate(schema, &applied).is_empty()
    {
        return conflicts;
    }
    let comparison = merge::compare(schema, &applied, live);
    let own = typed::field_set(schema, &applied)
        .difference(&comparison.modified)
        .difference(&comparison.added)
        .difference(&comparison.removed);
    conflicts
        .into_iter()
        .filter(|conflict| !own.has_path(&conflict.path))
        .collect()
}

/// Keeps the annotation of `kubectl apply` up to date, so that users can go back to applying on the client.
fn remember_as_applied(object: &mut Value, config: &Value) {
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    if let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") {
        // Upstream's encoder ends with a line break.
        annotations.insert(LAST_APPLIED.to_owned(), Value::String(format!("{config}\n")));
    }
}
