//! ControllerRevision. Upstream: `pkg/apis/apps`, `pkg/registry/apps/controllerrevision`.

use crate::access::Read;
use crate::at::At;
use crate::strategy::{Errors, Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::gvk::split_api_version;
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldPath, GroupResource};
use jiff::Timestamp;
use serde_json::Value;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Controller"), text("Revision"), AGE],
        cells,
    },
    check,
    check_update: Some(|revision, old, errors| {
        let root = At::new(revision, FieldPath::default());
        root.not_negative("revision", errors);
        root.immutable("data", old, errors);
    }),
    ..Kind::new(Facts::NAMESPACED_DATA)
};

fn check(revision: &Value, errors: &mut Errors) {
    let root = At::new(revision, FieldPath::default());
    root.not_negative("revision", errors);
    let data = root.child("data");
    match data.value() {
        Value::Null => errors.push(data.required("data is mandatory")),
        Value::Object(_) => {}
        _ => errors.push(data.required("data must be a valid JSON object")),
    }
}

fn cells(revision: &Value, now: Timestamp) -> Vec<Value> {
    let owners = revision.sub("metadata").list("ownerReferences");
    let controller = owners.iter().find(|owner| owner.flag("controller"));
    let controller = controller.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let (group, _) = split_api_version(owner.text("apiVersion"));
            let kind = GroupResource::new(group, owner.text("kind")).to_string();
            format!("{}/{}", kind.to_lowercase(), owner.text("name"))
        },
    );
    vec![
        revision.name().into(),
        controller.into(),
        revision.int("revision").unwrap_or_default().into(),
        age(revision, now),
    ]
}
