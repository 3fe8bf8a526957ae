//! Amounts of resources, and what a pod asks for. Upstream: `framework.Resource`, `k8s.io/component-helpers/resource`.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// What a container without a request counts for when nodes are compared (not when they are checked).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

type ResourceList = BTreeMap<String, Quantity>;

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Huge pages and extended resources, in their units.
    pub scalar: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list; text that is no quantity counts as nothing. `pods` is not an amount and left out.
    pub fn of(list: &ResourceList) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            let Ok(quantity) = coracle_meta::Quantity::parse(&quantity.0) else {
                continue;
            };
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli_value(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => {
                    resources.scalar.insert(name.clone(), quantity.value());
                }
            }
        }
        resources
    }

    /// Adds.
    pub fn add(&mut self, other: &Self) {
        self.milli_cpu += other.milli_cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() += amount;
        }
    }

    /// Subtracts what was added before.
    pub fn sub(&mut self, other: &Self) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() -= amount;
        }
    }

    /// Raises each amount to at least the other's.
    pub fn max(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let entry = self.scalar.entry(name.clone()).or_default();
            *entry = (*entry).max(*amount);
        }
    }

    /// Whether nothing is asked for.
    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral_storage == 0
            && self.scalar.values().all(|amount| *amount == 0)
    }
}

/// What a pod needs at any one time: its containers together, or an init container with the sidecars before it,
/// whichever is more; pod-level requests override; overhead comes on top. With `defaults`, containers without a
/// request count with a usual one.
pub fn pod_requests(pod: &Pod, defaults: bool) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::default();
    };
    let status = pod.status.as_ref();
    let of = |container: &Container, statuses: Option<&Vec<ContainerStatus>>| {
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let mut resources = requests.map(Resources::of).unwrap_or_default();
        if defaults {
            let has = |name: &str| requests.is_some_and(|list| list.contains_key(name));
            if !has("cpu") {
                resources.milli_cpu = DEFAULT_MILLI_CPU;
            }
            if !has("memory") {
                resources.memory = DEFAULT_MEMORY;
            }
        }
        // While a resize is under way, the larger of what is wanted and what is held counts.
        let held = statuses.into_iter().flatten().find(|s| s.name == container.name);
        if let Some(held) = held {
            let actual = held.resources.as_ref().and_then(|r| r.requests.as_ref());
            for list in [actual, held.allocated_resources.as_ref()].into_iter().flatten() {
                resources.max(&Resources::of(list));
            }
        }
        resources
    };
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of(container, status.and_then(|s| s.container_statuses.as_ref())));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let statuses = status.and_then(|s| s.init_container_statuses.as_ref());
        if container.restart_policy.as_deref() == Some("Always") {
            let requests = of(container, statuses);
            total.add(&requests);
            sidecars.add(&requests);
            starting.max(&sidecars);
        } else {
            let mut requests = of(container, None);
            requests.add(&sidecars);
            starting.max(&requests);
        }
    }
    total.max(&starting);
    if let Some(requests) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        override_with(&mut total, requests);
    }
    if let Some(overhead) = &spec.overhead {
        total.add(&Resources::of(overhead));
    }
    total
}

fn override_with(total: &mut Resources, requests: &ResourceList) {
    let pod_level = Resources::of(requests);
    if requests.contains_key("cpu") {
        total.milli_cpu = pod_level.milli_cpu;
    }
    if requests.contains_key("memory") {
        total.memory = pod_level.memory;
    }
    for (name, amount) in pod_level.scalar {
        if name.starts_with("hugepages-") {
            total.scalar.insert(name, amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn requests(spec: Value, defaults: bool) -> Resources {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec});
        pod_requests(&serde_json::from_value(pod).unwrap(), defaults)
    }

    fn container(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    #[test]
    fn containers_add_up_and_init_containers_do_not() {
        let spec = json!({
            "containers": [container("2", "1G"), container("1", "1G")],
            "initContainers": [container("2", "1G"), container("2", "3G")],
            "overhead": {"cpu": "100m"},
        });
        let resources = requests(spec, false);
        assert_eq!(resources.milli_cpu, 3100);
        assert_eq!(resources.memory, 3_000_000_000);
    }

    #[test]
    fn sidecars_run_beside_later_init_containers() {
        let mut sidecar = container("1", "1Gi");
        sidecar["restartPolicy"] = json!("Always");
        let spec = json!({
            "containers": [container("1", "1Gi")],
            "initContainers": [container("2", "1Gi"), sidecar, container("2", "1Gi")],
        });
        assert_eq!(requests(spec, false).milli_cpu, 3000);
    }

    #[test]
    fn absent_requests_are_nothing_or_a_default() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        assert!(requests(spec.clone(), false).is_zero());
        assert_eq!(requests(spec.clone(), true).milli_cpu, 200);
        let mut pod_level = spec;
        pod_level["resources"] = json!({"requests": {"cpu": "1500m"}});
        assert_eq!(requests(pod_level, false).milli_cpu, 1500);
    }

    #[test]
    fn extended_resources_count_in_their_units() {
        let spec =
            json!({"containers": [{"name": "a", "resources": {"requests": {"example.com/gpu": "2"}}}]});
        assert_eq!(requests(spec, false).scalar["example.com/gpu"], 2);
    }
}
