//! What the cache knows about a Service, as evidence.

use crate::service_pods::{protocol, selector, selects};
use coracle_diagnose::{Evidence, Workload};
use coracle_reconcile::{Cache, Key};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whether each port has an endpoint that takes connections: then there is nothing to look for. One look-up.
pub(super) fn has_endpoints(service: &Service, cache: &Cache) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let key = Key::of(service);
    let slices: Vec<&Arc<EndpointSlice>> = cache
        .slices_of(&key.namespace, &key.name)
        .filter(|slice| has_ready(slice))
        .collect();
    let ports = spec.ports.as_deref().unwrap_or_default();
    !slices.is_empty()
        && ports
            .iter()
            .all(|port| slices.iter().any(|slice| serves(slice, port)))
}

fn has_ready(slice: &EndpointSlice) -> bool {
    let mut endpoints = slice.endpoints.iter().flatten();
    endpoints.any(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    })
}

fn serves(slice: &EndpointSlice, port: &ServicePort) -> bool {
    let mut ports = slice.ports.iter().flatten();
    ports.any(|served| {
        served.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
            && protocol(served.protocol.as_deref()) == protocol(port.protocol.as_deref())
    })
}

/// Everything that has to do with a Service.
pub(super) fn collect(service: &Service, cache: &Cache) -> Evidence {
    let key = Key::of(service);
    let mut evidence = Evidence::new(key.namespace.clone(), key.name.clone());
    evidence.pods = cache.in_namespace::<Pod>(&key.namespace).cloned().collect();
    // One that somebody forgot to label has at least a similar name.
    let unlabelled = cache.slices_of(&key.namespace, "").filter(|slice| {
        slice
            .metadata
            .name
            .as_ref()
            .is_some_and(|name| name.starts_with(&key.name))
    });
    let slices = cache.slices_of(&key.namespace, &key.name).chain(unlabelled);
    evidence.slices = slices.cloned().collect();
    if let Some(selector) = selector(service) {
        let finds = |pod: &Pod| selects(selector, pod.metadata.labels.as_ref());
        if !evidence.pods.iter().any(|pod| finds(pod)) {
            evidence.workloads = workloads(&key.namespace, cache);
            evidence.elsewhere = elsewhere(cache, finds);
        }
    }
    evidence.service = Some(service.clone());
    evidence
}

fn elsewhere(cache: &Cache, finds: impl Fn(&Pod) -> bool) -> BTreeMap<String, usize> {
    let mut namespaces = BTreeMap::new();
    for pod in cache.list::<Pod>().filter(|pod| finds(pod)) {
        *namespaces.entry(Key::of(&**pod).namespace).or_default() += 1;
    }
    namespaces
}

fn workloads(namespace: &str, cache: &Cache) -> Vec<Workload> {
    let mut all = Vec::new();
    for object in cache.in_namespace::<Deployment>(namespace) {
        if let Some(spec) = &object.spec {
            all.extend(Workload::of(
                "deployment",
                &object.metadata,
                spec.replicas,
                Some(&spec.template),
            ));
        }
    }
    for object in cache.in_namespace::<StatefulSet>(namespace) {
        if let Some(spec) = &object.spec {
            all.extend(Workload::of(
                "statefulset",
                &object.metadata,
                spec.replicas,
                Some(&spec.template),
            ));
        }
    }
    for object in cache.in_namespace::<DaemonSet>(namespace) {
        let wanted = object
            .status
            .as_ref()
            .map(|status| status.desired_number_scheduled);
        if let Some(spec) = &object.spec {
            all.extend(Workload::of(
                "daemonset",
                &object.metadata,
                wanted,
                Some(&spec.template),
            ));
        }
    }
    for object in cache.in_namespace::<ReplicaSet>(namespace) {
        if let Some(spec) = &object.spec {
            all.extend(Workload::of(
                "replicaset",
                &object.metadata,
                spec.replicas,
                spec.template.as_ref(),
            ));
        }
    }
    for object in cache.in_namespace::<ReplicationController>(namespace) {
        if let Some(spec) = &object.spec {
            all.extend(Workload::of(
                "replicationcontroller",
                &object.metadata,
                spec.replicas,
                spec.template.as_ref(),
            ));
        }
    }
    all
}
