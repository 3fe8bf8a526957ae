//! IngressClass. Upstream: `pkg/apis/networking`, `pkg/registry/networking/ingressclass`.

use crate::access::{Read, Write};
use crate::at::{At, label};
use crate::batch::job::domain_prefixed_path;
use crate::networking::ingress::validate_reference;
use crate::strategy::{Errors, Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::FieldError;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;

const CONTROLLER_MAX: usize = 250;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Controller"), text("Parameters"), AGE],
        cells,
    },
    default: |class| {
        if let Some(parameters) = class.object("spec").existing("parameters") {
            parameters.fill("scope", "Cluster");
        }
    },
    check,
    check_update: Some(|class, old, errors| {
        At::top(class, "spec").immutable("controller", old.sub("spec"), errors);
        check(class, errors);
    }),
    ..Kind::new(Facts {
        status: false,
        ..Facts::CLUSTER
    })
};

fn check(class: &Value, errors: &mut Errors) {
    let spec = At::top(class, "spec");
    let controller = spec.child("controller");
    if controller.as_text().len() > CONTROLLER_MAX {
        errors.push(FieldError::too_long(&controller.path, CONTROLLER_MAX));
    }
    domain_prefixed_path(&controller, errors);
    let Some(parameters) = spec.present("parameters") else {
        return;
    };
    validate_reference(&parameters, errors);
    let namespace = parameters.child("namespace");
    match parameters.text("scope") {
        "Namespace" if namespace.is_null() => {
            errors.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
        }
        "Namespace" => namespace.form(label, errors),
        "Cluster" if !namespace.is_null() => {
            errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        _ => parameters.require_one_of("scope", &["Cluster", "Namespace"], errors),
    }
}

fn cells(class: &Value, now: Timestamp) -> Vec<Value> {
    let spec = class.sub("spec");
    let mut name = class.name().to_owned();
    if class.annotation("ingressclass.kubernetes.io/is-default-class") == Some("true") {
        name.push_str(" (default)");
    }
    let parameters = spec.field("parameters").map_or_else(
        || "<none>".to_owned(),
        |parameters| {
            let kind = parameters.text("kind");
            let kind = match parameters.text("apiGroup") {
                "" => kind.to_owned(),
                group => format!("{kind}.{group}"),
            };
            format!("{kind}/{}", parameters.text("name"))
        },
    );
    vec![
        name.into(),
        spec.text("controller").into(),
        parameters.into(),
        age(class, now),
    ]
}
