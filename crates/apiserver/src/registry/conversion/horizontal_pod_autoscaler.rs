//! `autoscaling/v1` and `v2`: v1 knows one metric, the CPU; the others travel in annotations.
//! Upstream: `pkg/apis/autoscaling/v1/conversion.go`.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

pub fn to_v2(mut object: Value) -> Value {
    let mut metrics = take_list(&mut object, METRICS);
    let current = take_list(&mut object, CURRENT_METRICS);
    let conditions = take_list(&mut object, CONDITIONS);
    let behavior = take_annotation(&mut object, BEHAVIOR);
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(target) = spec.remove("targetCPUUtilizationPercentage") {
            metrics.insert(
                0,
                json!({ "type": "Resource", "resource": {
                    "name": "cpu", "target": { "type": "Utilization", "averageUtilization": target } } }),
            );
        }
        set_list(spec, "metrics", metrics);
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let mut all = Vec::new();
        if let Some(value) = status.remove("currentCPUUtilizationPercentage") {
            all.push(json!({ "type": "Resource", "resource": {
                "name": "cpu", "current": { "averageUtilization": value } } }));
        }
        all.extend(current);
        set_list(status, "currentMetrics", all);
        set_list(status, "conditions", conditions);
    }
    object
}

pub fn from_v2(mut object: Value) -> Value {
    let mut annotations = Vec::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let (cpu, others) = split(spec.remove("metrics"), |m| &m["target"]["averageUtilization"]);
        if let Some(target) = cpu {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), target);
        }
        annotations.push((METRICS, (!others.is_empty()).then_some(Value::Array(others))));
        annotations.push((BEHAVIOR, spec.remove("behavior")));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let (cpu, others) = split(
            status.remove("currentMetrics"),
            |m| &m["current"]["averageUtilization"],
        );
        if let Some(current) = cpu {
            status.insert("currentCPUUtilizationPercentage".to_owned(), current);
        }
        annotations.push((
            CURRENT_METRICS,
            (!others.is_empty()).then_some(Value::Array(others)),
        ));
        annotations.push((CONDITIONS, status.remove("conditions")));
    }
    for (key, value) in annotations {
        if let Some(value) = value {
            object["metadata"]["annotations"][key] = value.to_string().into();
        }
    }
    object
}

/// The CPU's utilisation, and the metrics that v1 cannot say.
fn split(metrics: Option<Value>, utilization: impl Fn(&Value) -> &Value) -> (Option<Value>, Vec<Value>) {
    let mut cpu = None;
    let mut others = Vec::new();
    let Some(Value::Array(metrics)) = metrics else {
        return (cpu, others);
    };
    for metric in metrics {
        let resource = &metric["resource"];
        let value = utilization(resource);
        if cpu.is_none() && resource["name"] == "cpu" && value.is_number() {
            cpu = Some(value.clone());
        } else {
            others.push(metric);
        }
    }
    (cpu, others)
}

fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = object
        .get_mut("metadata")?
        .get_mut("annotations")?
        .as_object_mut()?;
    let text = annotations.remove(key)?;
    serde_json::from_str(text.as_str()?).ok()
}

fn take_list(object: &mut Value, key: &str) -> Vec<Value> {
    match take_annotation(object, key) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn set_list(map: &mut Map<String, Value>, key: &str, items: Vec<Value>) {
    if !items.is_empty() {
        map.insert(key.to_owned(), items.into());
    }
}
