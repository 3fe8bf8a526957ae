//! Conversions lose nothing.

use super::*;
use coracle_api::resources::by_gvr;
use serde_json::json;

#[test]
fn autoscalers_round_trip() {
    let v1 = by_gvr("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    let stored = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a", "annotations": {"k": "v"}},
        "spec": {"maxReplicas": 3, "behavior": {"scaleDown": {}}, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}}]},
        "status": {"currentReplicas": 1, "conditions": [{"type": "AbleToScale"}], "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5}}}]}
    });
    let shown = from_storage(v1, stored.clone());
    assert_eq!(shown["apiVersion"], "autoscaling/v1");
    assert_eq!(shown["spec"]["targetCPUUtilizationPercentage"], 80);
    assert_eq!(shown["status"]["currentCPUUtilizationPercentage"], 5);
    assert!(shown["spec"].get("metrics").is_none());
    assert_eq!(to_storage(v1, shown), stored);
}

#[test]
fn events_round_trip() {
    let new = by_gvr("events.k8s.io", "v1", "events").unwrap();
    let stored = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"},
        "message": "m", "reportingComponent": "kubelet", "source": {"component": "kubelet"}, "count": 2, "type": "Normal"
    });
    let shown = from_storage(new, stored.clone());
    assert_eq!(shown["regarding"]["kind"], "Pod");
    assert_eq!(shown["note"], "m");
    assert_eq!(shown["deprecatedCount"], 2);
    assert_eq!(to_storage(new, shown), stored);
}
