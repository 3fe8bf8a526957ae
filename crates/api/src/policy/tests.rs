//! Golden cases of disruption budgets.

use crate::strategy::strategy;
use crate::tests::{create, named, row, wrong};
use serde_json::json;

#[test]
fn budgets() {
    let kind = strategy("policy", "PodDisruptionBudget");
    let spec = json!({"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}});
    let mut budget = named(kind, "db", json!({"spec": spec}));
    assert_eq!(create(kind, &mut budget), "");
    assert_eq!(
        budget["status"],
        json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
    );
    assert_eq!(row(kind, &budget), json!(["db", "50%", "N/A", 0, "5m"]));
    assert_eq!(
        wrong(
            kind,
            json!({"spec": {"minAvailable": 1, "maxUnavailable": "120%"}})
        ),
        "spec: Invalid value: {\"maxUnavailable\":\"120%\",\"minAvailable\":1}: minAvailable and maxUnavailable \
         cannot be both set; spec.maxUnavailable: Invalid value: \"120%\": must not be greater than 100%"
    );
}
