//! The quality-of-service class of a pod: BestEffort, Burstable, Guaranteed. Upstream: `qos.ComputePodQOS`.

use coracle_meta::quantity;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

type List = BTreeMap<String, Quantity>;

/// The class that the pod's requests and limits put it in.
pub fn class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else {
        return "BestEffort";
    };
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut guaranteed = true;
    let mut consider = |resources: Option<&ResourceRequirements>| {
        add(&mut requests, resources.and_then(|r| r.requests.as_ref()));
        let limited = add(&mut limits, resources.and_then(|r| r.limits.as_ref()));
        guaranteed &= limited == 2;
    };
    match &spec.resources {
        Some(of_pod) => consider(Some(of_pod)),
        None => {
            for container in spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
            {
                consider(container.resources.as_ref());
            }
        }
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds CPU and memory; returns how many of the two are set.
fn add(sum: &mut BTreeMap<&'static str, quantity::Quantity>, list: Option<&List>) -> usize {
    let mut found = 0;
    for name in ["cpu", "memory"] {
        let value = list.and_then(|l| l.get(name));
        let Some(value) = value.and_then(|q| quantity::Quantity::parse(&q.0).ok()) else {
            continue;
        };
        if value.sign() > 0 {
            let total = sum.entry(name).or_insert_with(quantity::Quantity::zero);
            *total = total.add(&value);
            found += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::class;
    use k8s_openapi::serde_json::{Value, from_value, json};

    fn of(containers: Value) -> &'static str {
        class(&from_value(json!({"metadata": {}, "spec": {"containers": containers}})).expect("a pod"))
    }

    #[test]
    fn classes() {
        let full = json!({"cpu": "500m", "memory": "1Gi"});
        assert_eq!(of(json!([{"name": "a"}])), "BestEffort");
        assert_eq!(
            of(
                json!([{"name": "a", "resources": {"limits": full, "requests": {"cpu": "0.5", "memory": "1024Mi"}}}])
            ),
            "Guaranteed"
        );
        assert_eq!(
            of(json!([{"name": "a", "resources": {"limits": full, "requests": full}}, {"name": "b"}])),
            "Burstable"
        );
        assert_eq!(
            of(json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}])),
            "Burstable"
        );
        assert_eq!(
            of(json!([{"name": "a", "resources": {"requests": {"nvidia.com/gpu": "1"}}}])),
            "BestEffort"
        );
    }
}
