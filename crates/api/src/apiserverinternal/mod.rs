//! The kind of the group `internal.apiserver.k8s.io`. Upstream: `pkg/registry/apiserverinternal`.

use crate::access::Read;
use crate::strategy::{Facts, Kind, NameRule};
use crate::table::{AGE, NAME, TableSpec, age, at_most, text};
use coracle_meta::object::ObjectExt;

pub(crate) static STORAGE_VERSION: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("CommonEncodingVersion"), text("StorageVersions"), AGE],
        cells: |version, now| {
            let status = version.sub("status");
            let or_unset = |text: &str| if text.is_empty() { "<unset>" } else { text }.to_owned();
            let versions: Vec<String> = status
                .list("storageVersions")
                .iter()
                .map(|one| format!("{}={}", one.text("apiServerID"), one.text("encodingVersion")))
                .collect();
            vec![
                version.name().into(),
                or_unset(status.text("commonEncodingVersion")).into(),
                or_unset(&at_most(&versions, 3)).into(),
                age(version, now),
            ]
        },
    },
    ..Kind::new(Facts {
        name: NameRule::PathSegment,
        generation: false,
        unconditional_update: false,
        ..Facts::CLUSTER
    })
};
