//! ComponentStatus, which is made on request and not stored. Upstream: `pkg/registry/core/componentstatus`.

use crate::access::Read;
use crate::strategy::{Facts, Kind};
use crate::table::{NAME, TableSpec, text};
use coracle_meta::object::ObjectExt;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Status"), text("Message"), text("Error")],
        cells: |component, _| {
            let conditions = component.list("conditions");
            let healthy = conditions
                .iter()
                .find(|condition| condition.text("type") == "Healthy");
            let status = match healthy.map(|condition| condition.text("status")) {
                None => "Unknown",
                Some("True") => "Healthy",
                Some(_) => "Unhealthy",
            };
            let part = |key: &str| healthy.map_or("", |condition| condition.text(key));
            vec![
                component.name().into(),
                status.into(),
                part("message").into(),
                part("error").into(),
            ]
        },
    },
    request_warning: Some("v1 ComponentStatus is deprecated in v1.19+"),
    ..Kind::new(Facts::CLUSTER_DATA)
};
