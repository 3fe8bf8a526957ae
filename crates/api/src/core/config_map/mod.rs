//! ConfigMap. Upstream: `pkg/apis/core`, `pkg/registry/core/configmap`.

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
    ..Kind::new(Facts::NAMESPACED_DATA)
};
