//! ServiceCIDR. Upstream: `pkg/apis/networking`, `pkg/registry/networking/servicecidr`.

use crate::access::{Read, Write};
use crate::at::{At, IMMUTABLE};
use crate::core::service;
use crate::strategy::{Errors, Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::FieldError;
use coracle_meta::object::ObjectExt;
use ipnet::IpNet;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("CIDRs"), AGE],
        cells: |range, now| {
            let ranges = range.sub("spec").texts("cidrs").join(",");
            vec![range.name().into(), ranges.into(), age(range, now)]
        },
    },
    prepare_for_create: |range| range.put("status", json!({})),
    check,
    check_update: Some(check_update),
    ..Kind::new(Facts {
        generation: false,
        ..Facts::CLUSTER
    })
};

fn check(range: &Value, errors: &mut Errors) {
    let spec = At::top(range, "spec");
    let list = spec.child("cidrs");
    let ranges = spec.texts("cidrs");
    match ranges.len() {
        0 => {
            errors.push(list.required("at least one CIDR required"));
            return;
        }
        1 | 2 => {}
        _ => {
            let detail = "may only hold up to 2 values";
            errors.push(list.invalid(detail));
            return;
        }
    }
    for (index, range) in ranges.iter().enumerate() {
        service::validate_cidr(&list.path.index(index), range, errors);
    }
    let families: Vec<bool> = ranges
        .iter()
        .filter_map(|range| range.parse::<IpNet>().ok())
        .map(|net| net.addr().is_ipv6())
        .collect();
    if families.len() == 2 && families[0] == families[1] {
        errors.push(list.invalid("may specify no more than one IP for each IP family"));
    }
}

/// A second family may come; what is there stays.
fn check_update(range: &Value, old: &Value, errors: &mut Errors) {
    let spec = At::top(range, "spec");
    let list = spec.child("cidrs");
    let (new, before) = (spec.texts("cidrs"), old.sub("spec").texts("cidrs"));
    match (before.len(), new.len()) {
        (1, 2) => {
            if new[0] != before[0] {
                let path = list.path.index(0);
                errors.push(FieldError::invalid(&path, new[0], IMMUTABLE));
            }
            check(range, errors);
        }
        _ if new != before => errors.push(list.invalid(IMMUTABLE)),
        _ => {}
    }
}
