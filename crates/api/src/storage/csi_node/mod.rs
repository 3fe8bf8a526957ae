//! CSINode. Upstream: `pkg/apis/storage`, `pkg/registry/storage/csinode`.

use crate::access::Read;
use crate::at::At;
use crate::core::pod_spec;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, integer};
use coracle_meta::object::ObjectExt;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, integer("Drivers"), AGE],
        cells: |node, now| {
            let drivers = node.sub("spec").list("drivers").len();
            vec![node.name().into(), drivers.into(), age(node, now)]
        },
    },
    check: |node, errors| {
        for driver in At::top(node, "spec").each("drivers") {
            pod_spec::validate_csi_driver(&driver.child("name"), errors);
            driver.require("nodeID", errors);
        }
    },
    ..Kind::new(Facts {
        unconditional_update: false,
        ..Facts::CLUSTER_DATA
    })
};
