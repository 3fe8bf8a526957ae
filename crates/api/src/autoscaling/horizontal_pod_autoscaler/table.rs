//! The table of autoscalers. Upstream: `printHorizontalPodAutoscaler`, `formatHPAMetrics`.

use crate::access::Read;
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;

pub(super) static TABLE: TableSpec = TableSpec {
    columns: &[
        NAME,
        text("Reference"),
        text("Targets"),
        text("MinPods"),
        text("MaxPods"),
        text("Replicas"),
        AGE,
    ],
    cells,
};

/// How many metrics are shown.
const SHOWN: usize = 2;

fn cells(autoscaler: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (autoscaler.sub("spec"), autoscaler.sub("status"));
    let target = spec.sub("scaleTargetRef");
    let min = spec.int("minReplicas");
    vec![
        autoscaler.name().into(),
        format!("{}/{}", target.text("kind"), target.text("name")).into(),
        metrics(spec, status).into(),
        min.map_or("<unset>".to_owned(), |min| min.to_string()).into(),
        spec.int("maxReplicas").unwrap_or_default().into(),
        status.int("currentReplicas").unwrap_or_default().into(),
        age(autoscaler, now),
    ]
}

fn metrics(spec: &Value, status: &Value) -> String {
    let metrics = spec.list("metrics");
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let current = status.list("currentMetrics");
    let texts: Vec<String> = metrics
        .iter()
        .enumerate()
        .take(SHOWN)
        .map(|(index, metric)| metric_text(metric, current.get(index).unwrap_or(&Value::Null)))
        .collect();
    let shown = texts.join(", ");
    if metrics.len() > SHOWN {
        format!("{shown} + {} more...", metrics.len() - SHOWN)
    } else {
        shown
    }
}

fn metric_text(metric: &Value, current: &Value) -> String {
    let key = match metric.text("type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (source, current) = (metric.sub(key), current.sub(key).sub("current"));
    let target = source.sub("target");
    let now = |part: &str| match current.sub(part) {
        Value::Null => "<unknown>".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let average = target.text("averageValue");
    match key {
        "pods" => format!("{}/{average}", now("averageValue")),
        "external" | "object" if average.is_empty() => {
            format!("{}/{}", now("value"), target.text("value"))
        }
        "external" | "object" => format!("{}/{average} (avg)", now("averageValue")),
        _ if average.is_empty() => {
            let percent = |share: Option<i64>, absent: &str| {
                share.map_or(absent.to_owned(), |share| format!("{share}%"))
            };
            let now = percent(current.int("averageUtilization"), "<unknown>");
            let wanted = percent(target.int("averageUtilization"), "<auto>");
            format!("{}: {now}/{wanted}", source.text("name"))
        }
        _ => format!("{}: {}/{average}", source.text("name"), now("averageValue")),
    }
}
