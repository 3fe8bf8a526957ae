//! The kind of the group `storagemigration.k8s.io`. Upstream: `pkg/registry/storagemigration`.

use crate::access::Read;
use crate::strategy::{Facts, Kind};
use crate::table::{NAME, TableSpec, text};
use coracle_meta::GroupResource;
use coracle_meta::object::ObjectExt;

pub(crate) static STORAGE_VERSION_MIGRATION: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Resource"), text("Status")],
        cells: |migration, _| {
            let resource = migration.sub("spec").sub("resource");
            let resource = GroupResource::new(resource.text("group"), resource.text("resource"));
            let conditions = migration.sub("status").list("conditions");
            let status = conditions
                .iter()
                .filter(|condition| condition.text("status") == "True")
                .map(|condition| condition.text("type"))
                .rfind(|kind| matches!(*kind, "Running" | "Failed" | "Succeeded"));
            vec![
                migration.name().into(),
                resource.to_string().into(),
                status.unwrap_or("Unknown").into(),
            ]
        },
    },
    ..Kind::new(Facts {
        unconditional_update: false,
        ..Facts::CLUSTER
    })
};
