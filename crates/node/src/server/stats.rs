//! `/stats/summary`: what pods and containers use. Upstream: `pkg/kubelet/server/stats`.

use crate::kubelet::Kubelet;
use coracle_oci::Stats;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The summary now.
pub async fn summary(kubelet: &Kubelet) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut pods = Vec::new();
    let mut total = Stats::default();
    for view in kubelet.views.list() {
        let mut containers = Vec::new();
        for container in &view.containers {
            let Some(id) = &container.running else { continue };
            if let Ok(stats) = kubelet.runtime.stats(id).await {
                let mut entry = usage(&stats, &now);
                entry["name"] = json!(container.name);
                containers.push(entry);
            }
        }
        let Ok(stats) = kubelet.runtime.pod_stats(view.uid()).await else {
            continue;
        };
        total.cpu_usage_ns += stats.cpu_usage_ns;
        total.memory_usage += stats.memory_usage;
        total.memory_working_set += stats.memory_working_set;
        total.memory_rss += stats.memory_rss;
        let meta = &view.pod.metadata;
        let mut entry = usage(&stats, &now);
        entry["podRef"] = json!({"name": meta.name, "namespace": meta.namespace, "uid": meta.uid});
        entry["startTime"] = json!(view.status.start_time);
        entry["containers"] = json!(containers);
        pods.push(entry);
    }
    let mut node = usage(&total, &now);
    node["nodeName"] = json!(kubelet.config.name);
    node["memory"]["availableBytes"] = json!(
        kubelet
            .resources
            .memory()
            .saturating_sub(total.memory_working_set)
    );
    json!({"node": node, "pods": pods})
}

fn usage(stats: &Stats, now: &str) -> Value {
    json!({
        "cpu": {"time": now, "usageCoreNanoSeconds": stats.cpu_usage_ns},
        "memory": {
            "time": now,
            "usageBytes": stats.memory_usage,
            "workingSetBytes": stats.memory_working_set,
            "rssBytes": stats.memory_rss,
        },
    })
}
