//! ConfigMap. Upstream: `pkg/apis/core`, `pkg/registry/core/configmap`.

mod validation;

pub(crate) use validation::{SIZE_MAX, check_immutable, decoded_len, validate_key};

use crate::access::Read;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::object::ObjectExt;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Data"), AGE],
        cells: |map, now| {
            let entries = map.size("data") + map.size("binaryData");
            vec![map.name().into(), entries.into(), age(map, now)]
        },
    },
    check: validation::check,
    check_update: Some(validation::check_update),
    ..Kind::new(Facts::NAMESPACED_DATA)
};
