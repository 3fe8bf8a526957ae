//! Golden cases of autoscalers, in the form of `autoscaling/v2`.

use crate::strategy::strategy;
use crate::tests::{create, named, row, wrong};
use serde_json::json;

#[test]
fn autoscalers() {
    let kind = strategy("autoscaling", "HorizontalPodAutoscaler");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"});
    let mut scaler = named(
        kind,
        "api",
        json!({"spec": {"scaleTargetRef": target, "maxReplicas": 5}}),
    );
    assert_eq!(create(kind, &mut scaler), "");
    assert_eq!(scaler["spec"]["minReplicas"], 1);
    assert_eq!(
        row(kind, &scaler),
        json!(["api", "Deployment/api", "cpu: <unknown>/80%", "1", 5, 0, "5m"])
    );
    scaler["status"]["currentMetrics"] =
        json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}}]);
    assert_eq!(row(kind, &scaler)[2], "cpu: 12%/80%");
    assert_eq!(
        wrong(
            kind,
            json!({"spec": {"minReplicas": 3, "maxReplicas": 2, "scaleTargetRef": {"name": "a"}}})
        ),
        "spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`; \
         spec.scaleTargetRef.kind: Required value"
    );
}
