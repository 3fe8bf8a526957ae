//! RuntimeClass. Upstream: `pkg/apis/node`, `pkg/registry/node/runtimeclass`.

use crate::access::{Read, Write};
use crate::at::{At, label};
use crate::core::{pod_spec, resource_list};
use crate::object_meta;
use crate::strategy::{Errors, Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use crate::warnings::deprecated_node_label;
use coracle_meta::FieldPath;
use coracle_meta::object::ObjectExt;
use serde_json::Value;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Handler"), AGE],
        cells: |class, now| {
            let handler = class.text("handler");
            vec![class.name().into(), handler.into(), age(class, now)]
        },
    },
    default: |class| {
        if let Some(overhead) = class
            .existing("overhead")
            .and_then(|overhead| overhead.existing("podFixed"))
        {
            resource_list::default_list(overhead);
        }
    },
    check,
    check_update: Some(|class, old, errors| {
        At::new(class, FieldPath::default()).immutable("handler", old, errors);
    }),
    warnings: |class, _| {
        let selector = class.sub("scheduling").entries("nodeSelector");
        let messages = selector.filter_map(|(key, _)| deprecated_node_label(key));
        messages
            .map(|message| format!("scheduling.nodeSelector: {message}"))
            .collect()
    },
    ..Kind::new(Facts {
        create_on_update: true,
        unconditional_update: false,
        ..Facts::CLUSTER_DATA
    })
};

fn check(class: &Value, errors: &mut Errors) {
    let root = At::new(class, FieldPath::default());
    root.require_form("handler", label, errors);
    let overhead = root.child("overhead");
    for (name, value) in overhead.child("podFixed").as_object().into_iter().flatten() {
        let path = overhead.path.child("limits").key(name);
        resource_list::validate_container_name(name, &path, errors);
        resource_list::validate_quantity(name, &At::new(value, path), errors);
    }
    if let Some(scheduling) = root.present("scheduling") {
        object_meta::labels(&scheduling.child("nodeSelector"), errors);
        pod_spec::validate_tolerations(&scheduling, errors);
    }
}
