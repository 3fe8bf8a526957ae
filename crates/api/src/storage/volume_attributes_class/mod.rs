//! VolumeAttributesClass. Upstream: `pkg/apis/storage`, `pkg/registry/storage/volumeattributesclass`.

use crate::access::Read;
use crate::at::{At, qualified_name};
use crate::storage::storage_class::validate_parameters;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::FieldPath;
use coracle_meta::object::ObjectExt;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("DriverName"), AGE],
        cells: |class, now| {
            let driver = class.text("driverName");
            vec![class.name().into(), driver.into(), age(class, now)]
        },
    },
    check: |class, errors| {
        let root = At::new(class, FieldPath::default());
        root.require_form("driverName", |name| qualified_name(&name.to_lowercase()), errors);
        validate_parameters(&root, errors);
        if root.size("parameters") == 0 {
            let parameters = root.child("parameters");
            errors.push(parameters.required("must contain at least one key/value pair"));
        }
    },
    check_update: Some(|class, old, errors| {
        let root = At::new(class, FieldPath::default());
        root.immutable("driverName", old, errors);
        root.immutable("parameters", old, errors);
    }),
    ..Kind::new(Facts::CLUSTER_DATA)
};
