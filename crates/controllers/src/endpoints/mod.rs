//! Endpoints: the older form of the addresses behind a Service, one object a Service, at most 1000 addresses.
//! Upstream: `pkg/controller/endpoint`, `pkg/api/v1/endpoints`.

mod subsets;
#[cfg(test)]
mod tests;

use crate::service_pods::{self, HEADLESS, TRIGGER_TIME};
use coracle_reconcile::{Action, Cache, EventType, Key, Outcome, Plan, Precondition, Spec, Watch};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use subsets::canonical;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Leader election used to keep its lock in Endpoints of no Service; those are left alone.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// The controller of Endpoints.
pub fn spec() -> Spec {
    Spec::new("endpoint-controller", plan)
        .watch(Watch::of(|service: &Service, _| vec![Key::of(service)]))
        .watch(Watch::changes(service_pods::keys))
        .watch(Watch::of(|endpoints: &Endpoints, _| vec![Key::of(endpoints)]))
        .after(after)
}

/// A Service, its pods and its Endpoints.
struct Observed<'a> {
    service: &'a Arc<Service>,
    pods: Vec<&'a Arc<Pod>>,
    endpoints: Option<&'a Arc<Endpoints>>,
}

fn observe<'a>(key: &Key, cache: &'a Cache) -> Option<Observed<'a>> {
    let service = cache.get::<Service>(&key.namespace, &key.name)?;
    let selector = service_pods::selector(service)?;
    Some(Observed {
        service,
        pods: service_pods::pods(service, selector, cache).collect(),
        endpoints: cache.get::<Endpoints>(&key.namespace, &key.name),
    })
}

fn plan(key: &Key, cache: &Cache, _now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    if cache.get::<Service>(&key.namespace, &key.name).is_none() {
        plan.steps.extend(orphaned(key, cache).map(|action| vec![action]));
        return plan;
    }
    let Some(observed) = observe(key, cache) else {
        return plan;
    };
    let all = subsets::desired(observed.service, &observed.pods);
    let (subsets, truncated) = subsets::truncate(all);
    let before = observed.endpoints;
    if before.is_some_and(|before| is_up_to_date(before, &observed, &subsets, truncated)) {
        return plan;
    }
    let mut endpoints = before.map_or_else(
        || Endpoints {
            metadata: ObjectMeta {
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                ..ObjectMeta::default()
            },
            subsets: None,
        },
        |before| Endpoints::clone(before),
    );
    let annotations = endpoints.metadata.annotations.get_or_insert_default();
    set(
        annotations,
        TRIGGER_TIME,
        trigger_time(&observed, &subsets).map(|time| time.to_string()),
    );
    set(
        annotations,
        OVER_CAPACITY,
        truncated.then(|| "truncated".to_owned()),
    );
    endpoints.metadata.labels = Some(labels(observed.service));
    endpoints.subsets = Some(subsets);
    plan.push(match before {
        None => Action::create(&endpoints),
        Some(_) => Action::update(&endpoints),
    });
    plan
}

fn set(annotations: &mut BTreeMap<String, String>, key: &str, value: Option<String>) {
    match value {
        Some(value) => annotations.insert(key.to_owned(), value),
        None => annotations.remove(key),
    };
}

/// Endpoints outlive their Service by no more than this; what is not ours and not a Service's is not touched.
fn orphaned(key: &Key, cache: &Cache) -> Option<Action> {
    let endpoints = cache.get::<Endpoints>(&key.namespace, &key.name)?;
    let annotations = endpoints.metadata.annotations.as_ref();
    let labels = endpoints.metadata.labels.as_ref();
    let ours = labels
        .and_then(|labels| labels.get(MANAGED_BY))
        .map(String::as_str)
        == Some(CONTROLLER);
    if !ours || annotations.is_some_and(|annotations| annotations.contains_key(LEADER)) {
        return None;
    }
    Some(Action::Delete {
        resource: Cache::resource_of::<Endpoints>(),
        key: key.clone(),
        precondition: Precondition {
            uid: endpoints.metadata.uid.clone(),
            resource_version: None,
        },
        propagation: None,
        grace_seconds: None,
    })
}

/// The Service's labels, and our own.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if !service.spec.as_ref().is_some_and(service_pods::has_cluster_ip) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels
}

fn is_up_to_date(
    before: &Endpoints,
    observed: &Observed<'_>,
    subsets: &[k8s_openapi::api::core::v1::EndpointSubset],
    truncated: bool,
) -> bool {
    let annotations = before.metadata.annotations.as_ref();
    let marked = annotations.is_some_and(|annotations| annotations.contains_key(OVER_CAPACITY));
    subsets::same(before.subsets.as_deref().unwrap_or_default(), subsets)
        && before.metadata.labels.as_ref() == Some(&labels(observed.service))
        && marked == truncated
}

/// When the oldest change happened that the Endpoints do not show yet.
fn trigger_time(
    observed: &Observed<'_>,
    subsets: &[k8s_openapi::api::core::v1::EndpointSubset],
) -> Option<Timestamp> {
    let Some(before) = observed.endpoints else {
        let created = observed.service.metadata.creation_timestamp.as_ref();
        return created.map(|time| time.0);
    };
    let shown = subsets::readiness(before.subsets.as_deref().unwrap_or_default());
    let wanted = subsets::readiness(subsets);
    let changed = wanted
        .into_iter()
        .filter(|(uid, ready)| shown.get(uid) != Some(ready));
    let times = changed.filter_map(|(uid, _)| {
        let pod = observed
            .pods
            .iter()
            .find(|pod| pod.metadata.uid.as_deref() == Some(uid))?;
        service_pods::trigger_time(pod)
    });
    times.min()
}

/// Tells on the Service's Endpoints that they could not be written.
fn after(key: &Key, cache: &Cache, plan: &Plan, outcome: &Outcome, _now: Timestamp) -> Vec<Action> {
    let (Some(observed), Some(error)) = (observe(key, cache), outcome.error()) else {
        return Vec::new();
    };
    let causes = error.details.iter().flat_map(|details| &details.causes);
    if error.is_conflict() || causes.into_iter().any(|c| c.reason == "NamespaceTerminating") {
        return Vec::new();
    }
    let create = plan
        .actions()
        .any(|action| matches!(action, Action::Create { .. }));
    let (reason, what) = if create {
        ("FailedToCreateEndpoint", "create endpoint for service")
    } else {
        ("FailedToUpdateEndpoint", "update endpoint")
    };
    let message = format!("Failed to {what} {key}: {error}");
    let subject = Endpoints {
        metadata: ObjectMeta {
            uid: observed
                .endpoints
                .and_then(|endpoints| endpoints.metadata.uid.clone()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            ..ObjectMeta::default()
        },
        subsets: None,
    };
    vec![Action::event(&subject, EventType::Warning, reason, message)]
}
