//! `metadata.managedFields`: who owns which fields. Upstream: `k8s.io/apimachinery/pkg/util/managedfields`.

use super::set::Set;
use crate::timestamp;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// More writers than these are merged into one, oldest first.
const MAX_UPDATE_MANAGERS: usize = 10;
/// The one that they are merged into.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By applying: it says what it wants to own.
    Apply,
    /// By writing: it owns what it changed.
    Update,
}

impl Operation {
    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Tells managers apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagerId {
    /// The name of the program.
    pub manager: String,
    /// How it writes.
    pub operation: Operation,
    /// The version it writes; empty for appliers, which are the same in every version.
    pub api_version: String,
    /// The subresource it writes, or empty.
    pub subresource: String,
}

impl ManagerId {
    /// Names a manager; without a name it is `unknown`, as upstream.
    pub fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let manager = if manager.is_empty() { "unknown" } else { manager };
        Self {
            manager: manager.to_owned(),
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => api_version.to_owned(),
            },
            subresource: subresource.to_owned(),
        }
    }
}

/// What one manager owns.
#[derive(Debug, Clone, PartialEq)]
pub struct Owned {
    /// The fields.
    pub fields: Set,
    /// The version in which the fields are named.
    pub api_version: String,
    /// When the manager last changed something, as on the wire.
    pub time: Option<String>,
}

/// All managers of an object.
pub type Managers = BTreeMap<ManagerId, Owned>;

/// Reads `metadata.managedFields`. The error is upstream's.
pub fn decode(entries: &Value) -> Result<Managers, String> {
    let mut managers = Managers::new();
    for (i, entry) in entries.as_array().into_iter().flatten().enumerate() {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
            other => {
                return Err(format!(
                    "invalid fieldsType {other:?} in managed fields entry {i}"
                ));
            }
        }
        let none = json!({});
        let fields = entry.get("fieldsV1").filter(|v| !v.is_null()).unwrap_or(&none);
        let owned = Owned {
            fields: Set::from_fields_v1(fields)
                .ok_or_else(|| format!("error decoding set of managed fields entry {i}"))?,
            api_version: text("apiVersion").to_owned(),
            time: entry.get("time").and_then(Value::as_str).map(str::to_owned),
        };
        let id = ManagerId {
            manager: text("manager").to_owned(),
            ..ManagerId::new("", operation, text("apiVersion"), text("subresource"))
        };
        managers.insert(id, owned);
    }
    Ok(managers)
}

/// Writes `metadata.managedFields`, or removes it if nobody owns anything.
pub fn encode(object: &mut Value, managers: &Managers) {
    let mut entries: Vec<(&ManagerId, &Owned)> = managers.iter().collect();
    entries.sort_by(order);
    let entries: Vec<Value> = entries.into_iter().map(entry).collect();
    let Some(object) = object.as_object_mut() else {
        return;
    };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if let Value::Object(metadata) = metadata {
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}

/// Appliers first, then by time, then by name.
fn order(a: &(&ManagerId, &Owned), b: &(&ManagerId, &Owned)) -> Ordering {
    let ((a_id, a), (b_id, b)) = (a, b);
    a_id.operation
        .cmp(&b_id.operation)
        .then_with(|| seconds(a).cmp(&seconds(b)))
        .then_with(|| a_id.manager.cmp(&b_id.manager))
        .then_with(|| a.api_version.cmp(&b.api_version))
        .then_with(|| a_id.subresource.cmp(&b_id.subresource))
}

fn seconds(owned: &Owned) -> i64 {
    let time = owned.time.as_deref().and_then(timestamp::parse);
    time.map_or(0, |time| time.as_second())
}

fn entry((id, owned): (&ManagerId, &Owned)) -> Value {
    let mut entry = Map::new();
    entry.insert("apiVersion".to_owned(), owned.api_version.clone().into());
    entry.insert("fieldsType".to_owned(), "FieldsV1".into());
    entry.insert("fieldsV1".to_owned(), owned.fields.to_fields_v1());
    entry.insert("manager".to_owned(), id.manager.clone().into());
    entry.insert("operation".to_owned(), id.operation.as_str().into());
    if !id.subresource.is_empty() {
        entry.insert("subresource".to_owned(), id.subresource.clone().into());
    }
    if let Some(time) = &owned.time {
        entry.insert("time".to_owned(), time.clone().into());
    }
    Value::Object(entry)
}

/// Merges the oldest writers into one, so that an object written by many programs stays small.
pub(super) fn cap(managers: &mut Managers) {
    let mut updaters: Vec<(i64, ManagerId)> = managers
        .iter()
        .filter(|(id, _)| id.operation == Operation::Update)
        .map(|(id, owned)| (seconds(owned), id.clone()))
        .collect();
    updaters.sort();
    let mut count = updaters.len();
    let mut first_of_version: BTreeMap<String, ManagerId> = BTreeMap::new();
    for (_, id) in updaters {
        if count <= MAX_UPDATE_MANAGERS {
            return;
        }
        let bucket = ManagerId::new(ANCIENT_CHANGES, Operation::Update, &id.api_version, "");
        let Some(first) = first_of_version.get(&id.api_version) else {
            first_of_version.insert(id.api_version.clone(), id);
            continue;
        };
        if !managers.contains_key(&bucket)
            && let Some(owned) = managers.remove(first)
        {
            managers.insert(bucket.clone(), owned);
        }
        if bucket == id {
            continue;
        }
        if let Some(owned) = managers.remove(&id)
            && let Some(ancient) = managers.get_mut(&bucket)
        {
            ancient.fields.extend(&owned.fields);
            // The younger of the two times.
            ancient.time = owned.time;
            count -= 1;
        }
    }
}
