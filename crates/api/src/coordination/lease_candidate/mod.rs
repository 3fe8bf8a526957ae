//! LeaseCandidate. Upstream: `pkg/apis/coordination`, `pkg/registry/coordination/leasecandidate`.

use crate::access::Read;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::object::ObjectExt;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("LeaseName"),
            text("BinaryVersion"),
            text("EmulationVersion"),
            AGE,
        ],
        cells: |candidate, now| {
            let spec = candidate.sub("spec");
            vec![
                candidate.name().into(),
                spec.text("leaseName").into(),
                spec.text("binaryVersion").into(),
                spec.text("emulationVersion").into(),
                age(candidate, now),
            ]
        },
    },
    ..Kind::new(Facts {
        create_on_update: true,
        unconditional_update: false,
        ..Facts::NAMESPACED_DATA
    })
};
