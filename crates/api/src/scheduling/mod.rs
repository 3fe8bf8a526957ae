//! The kinds of the group `scheduling.k8s.io`. Upstream: `pkg/apis/scheduling`, `pkg/registry/scheduling`.

pub(crate) mod priority_class;

use crate::access::Read;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, NAME_AGE, TableSpec, age, or_none, text};
use coracle_meta::object::ObjectExt;

pub(crate) static WORKLOAD: Kind = Kind {
    table: &NAME_AGE,
    ..Kind::new(Facts::NAMESPACED)
};

pub(crate) static POD_GROUP: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Policy"), text("Workload"), text("Status"), AGE],
        cells: |group, now| {
            let spec = group.sub("spec");
            let policy = if spec.sub("schedulingPolicy").has("gang") {
                "Gang"
            } else {
                "Basic"
            };
            let workload = spec.sub("podGroupTemplateRef").sub("workload");
            let conditions = group.sub("status").list("conditions");
            let condition = |kind: &str| conditions.iter().rfind(|one| one.text("type") == kind);
            let scheduled = condition("PodGroupScheduled").map(|one| one.text("status"));
            let status = match (condition("DisruptionTarget"), scheduled) {
                (Some(target), _) => target.text("reason"),
                (None, Some("True")) => "Scheduled",
                (None, Some(_)) => "Unschedulable",
                (None, None) => "Pending",
            };
            vec![
                group.name().into(),
                policy.into(),
                or_none(workload.text("workloadName")),
                status.into(),
                age(group, now),
            ]
        },
    },
    ..Kind::new(Facts::NAMESPACED)
};
