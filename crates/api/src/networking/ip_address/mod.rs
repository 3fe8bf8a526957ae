//! IPAddress. Upstream: `pkg/apis/networking`, `pkg/registry/networking/ipaddress`.

use crate::access::Read;
use crate::at::{At, subdomain};
use crate::object_meta::path_segment;
use crate::strategy::{Errors, Facts, Kind, NameRule};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, GroupResource};
use jiff::Timestamp;
use serde_json::Value;
use std::net::IpAddr;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("ParentRef"), AGE],
        cells,
    },
    check,
    check_update: Some(|address, old, errors| {
        At::top(address, "spec").immutable("parentRef", old.sub("spec"), errors);
    }),
    selectable_fields: |address| {
        let parent = address.sub("spec").sub("parentRef");
        vec![("spec.parentRef.name", parent.text("name").to_owned())]
    },
    ..Kind::new(Facts {
        name: NameRule::Own,
        ..Facts::CLUSTER_DATA
    })
};

fn check(address: &Value, errors: &mut Errors) {
    let name = At::top(address, "metadata").child("name");
    let before = errors.len();
    name.ip(errors);
    if errors.len() == before
        && let Ok(ip) = name.as_text().parse::<IpAddr>()
        && ip.to_string() != name.as_text()
    {
        errors.push(name.invalid(&format!("must be in canonical form ({:?})", ip.to_string())));
    }
    let parent = At::top(address, "spec").child("parentRef");
    if parent.is_null() {
        errors.push(FieldError::required(&parent.path, ""));
        return;
    }
    let segment = |name: &str| path_segment(name, false);
    parent.optional_form("group", subdomain, errors);
    parent.require_form("resource", segment, errors);
    parent.require_form("name", segment, errors);
    parent.optional_form("namespace", segment, errors);
}

fn cells(address: &Value, now: Timestamp) -> Vec<Value> {
    let parent = address.sub("spec").field("parentRef").map_or_else(
        || "<none>".to_owned(),
        |parent| {
            let resource = GroupResource::new(parent.text("group"), parent.text("resource"));
            let resource = resource.to_string().to_lowercase();
            match parent.text("namespace") {
                "" => format!("{resource}/{}", parent.text("name")),
                namespace => format!("{resource}/{namespace}/{}", parent.text("name")),
            }
        },
    );
    vec![address.name().into(), parent.into(), age(address, now)]
}
