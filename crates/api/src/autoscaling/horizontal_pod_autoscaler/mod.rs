//! HorizontalPodAutoscaler, in the form of `autoscaling/v2`, in which it is stored. Upstream:
//! `pkg/apis/autoscaling`, `pkg/registry/autoscaling/horizontalpodautoscaler`.

mod table;
mod validation;

use crate::access::{Read, Write};
use crate::strategy::{Facts, Kind};
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &table::TABLE,
    default,
    prepare_for_create: |autoscaler| {
        autoscaler.put("status", json!({"currentMetrics": null, "desiredReplicas": 0}));
    },
    check: validation::check,
    check_status_update: validation::check_status_update,
    ..Kind::new(Facts {
        generation: false,
        ..Facts::NAMESPACED
    })
};

/// The share of its request that a pod's CPU should use unless metrics say otherwise.
const CPU_UTILIZATION: i64 = 80;

fn default(autoscaler: &mut Value) {
    let spec = autoscaler.object("spec");
    spec.fill("minReplicas", 1);
    if spec.list("metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": CPU_UTILIZATION});
        spec.put(
            "metrics",
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]),
        );
    }
    let Some(behavior) = spec.existing("behavior") else {
        return;
    };
    let up = behavior.object("scaleUp");
    up.fill("stabilizationWindowSeconds", 0);
    up.fill("selectPolicy", "Max");
    up.fill(
        "policies",
        json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ]),
    );
    let down = behavior.object("scaleDown");
    down.fill("selectPolicy", "Max");
    down.fill(
        "policies",
        json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
    );
}
