//! CSIStorageCapacity. Upstream: `pkg/apis/storage`, `pkg/registry/storage/csistoragecapacity`.

use crate::access::Read;
use crate::at::{At, subdomain};
use crate::core::resource_list;
use crate::label_selector;
use crate::strategy::{Facts, Kind};
use crate::table::{NAME, TableSpec, text};
use crate::warnings::{deprecated_node_label, node_selector_term};
use coracle_meta::FieldPath;
use coracle_meta::object::ObjectExt;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("StorageClassName"), text("Capacity")],
        cells: |capacity, _| {
            let amount = if capacity.has("capacity") {
                resource_list::text_of(capacity, "capacity")
            } else {
                "<unset>".to_owned()
            };
            vec![
                capacity.name().into(),
                capacity.text("storageClassName").into(),
                amount.into(),
            ]
        },
    },
    default: |capacity| {
        for key in ["capacity", "maximumVolumeSize"] {
            resource_list::canonicalize_field(capacity, key);
        }
    },
    check: |capacity, errors| {
        let root = At::new(capacity, FieldPath::default());
        root.child("storageClassName").form(subdomain, errors);
        label_selector::validate(&root.child("nodeTopology"), errors);
        for key in ["capacity", "maximumVolumeSize"] {
            if let Some(amount) = root.present(key) {
                resource_list::validate_quantity("storage", &amount, errors);
            }
        }
    },
    check_update: Some(|capacity, old, errors| {
        let root = At::new(capacity, FieldPath::default());
        root.immutable("nodeTopology", old, errors);
        root.immutable("storageClassName", old, errors);
    }),
    warnings: |capacity, _| {
        let mut warnings = Vec::new();
        let topology = At::top(capacity, "nodeTopology");
        node_selector_term(&topology, &mut warnings);
        for (key, _) in topology.entries("matchLabels") {
            if let Some(message) = deprecated_node_label(key) {
                warnings.push(format!("nodeTopology.matchLabels.{key}: {message}"));
            }
        }
        warnings
    },
    ..Kind::new(Facts {
        unconditional_update: false,
        ..Facts::NAMESPACED_DATA
    })
};
