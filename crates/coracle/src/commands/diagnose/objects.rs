//! What the API server knows.

use super::PodReference;
use anyhow::{Context, Result};
use coracle_client::{Client, ClientError, ListOptions};
use coracle_diagnose::Workload;
use coracle_meta::Selector;
use coracle_meta::names;
use coracle_reconcile::Kind;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeMap;

/// Objects that have to do with a Service.
pub struct Objects {
    pub service: Option<Service>,
    pub services: Vec<(String, String)>,
    pub pods: Vec<Pod>,
    pub elsewhere: BTreeMap<String, usize>,
    pub workloads: Vec<Workload>,
    pub slices: Vec<EndpointSlice>,
    pub events: Vec<Event>,
    pub nodes: Vec<Node>,
}

/// Reads them. What the user may not read and the walk can do without is left out.
pub async fn read(client: &Client, namespace: &str, name: &str) -> Result<Objects> {
    let service = async {
        match client.api::<Service>().get(namespace, name).await {
            Ok(service) => Ok(Some(service)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error).context("cannot read the Service"),
        }
    };
    let (service, pods, slices, events, nodes) = tokio::join!(
        service,
        list::<Pod>(client, namespace),
        list::<EndpointSlice>(client, namespace),
        list::<Event>(client, namespace),
        list::<Node>(client, ""),
    );
    let mut objects = Objects {
        service: service?,
        services: Vec::new(),
        pods: pods.context("cannot read the Pods")?,
        elsewhere: BTreeMap::new(),
        workloads: Vec::new(),
        slices: slices.context("cannot read the EndpointSlices")?,
        events: events.unwrap_or_default(),
        nodes: nodes.unwrap_or_default(),
    };
    match &objects.service {
        None => objects.services = services(client, namespace).await?,
        Some(service) => {
            let selector = service
                .spec
                .as_ref()
                .and_then(|spec| spec.selector.clone())
                .unwrap_or_default();
            let matches = Selector::from_set(&selector);
            let found = objects
                .pods
                .iter()
                .any(|pod| matches.matches(&pod.metadata.labels));
            if !selector.is_empty() && !found {
                (objects.workloads, objects.elsewhere) =
                    tokio::join!(workloads(client, namespace), elsewhere(client, &selector));
            }
        }
    }
    Ok(objects)
}

/// The Pod to connect from.
pub async fn client_pod(client: &Client, namespace: &str, reference: &PodReference) -> Result<Pod> {
    let namespace = reference.namespace.as_deref().unwrap_or(namespace);
    let pod = client.api::<Pod>().get(namespace, &reference.name).await;
    pod.with_context(|| format!("cannot read Pod {namespace}/{}", reference.name))
}

/// All Services, or those of the namespace where the user may not read all.
async fn services(client: &Client, namespace: &str) -> Result<Vec<(String, String)>> {
    let services = match list::<Service>(client, "").await {
        Ok(services) => services,
        Err(_) => list::<Service>(client, namespace)
            .await
            .context("cannot read the Services")?,
    };
    Ok(services
        .into_iter()
        .map(|service| {
            let text = |text: Option<String>| text.unwrap_or_default();
            (text(service.metadata.namespace), text(service.metadata.name))
        })
        .collect())
}

/// How many Pods of other namespaces a selector finds. None if the user may not know.
async fn elsewhere(client: &Client, selector: &BTreeMap<String, String>) -> BTreeMap<String, usize> {
    let valid = |(key, value): (&String, &String)| {
        names::is_label_key(key).is_empty() && names::is_label_value(value).is_empty()
    };
    let mut namespaces = BTreeMap::new();
    if !selector.iter().all(valid) {
        return namespaces;
    }
    let options = ListOptions {
        label_selector: Selector::from_set(selector).to_string(),
        ..ListOptions::default()
    };
    let pods = client
        .api::<Pod>()
        .list("", &options)
        .await
        .map(|list| list.items);
    for pod in pods.unwrap_or_default() {
        *namespaces
            .entry(pod.metadata.namespace.unwrap_or_default())
            .or_default() += 1;
    }
    namespaces
}

async fn workloads(client: &Client, namespace: &str) -> Vec<Workload> {
    let (deployments, stateful_sets, daemon_sets, replica_sets, controllers) = tokio::join!(
        list::<Deployment>(client, namespace),
        list::<StatefulSet>(client, namespace),
        list::<DaemonSet>(client, namespace),
        list::<ReplicaSet>(client, namespace),
        list::<ReplicationController>(client, namespace),
    );
    let mut workloads = Vec::new();
    for deployment in deployments.unwrap_or_default() {
        let spec = deployment.spec.unwrap_or_default();
        workloads.extend(Workload::of(
            "deployment",
            &deployment.metadata,
            spec.replicas,
            Some(&spec.template),
        ));
    }
    for set in stateful_sets.unwrap_or_default() {
        let spec = set.spec.unwrap_or_default();
        workloads.extend(Workload::of(
            "statefulset",
            &set.metadata,
            spec.replicas,
            Some(&spec.template),
        ));
    }
    for set in daemon_sets.unwrap_or_default() {
        let wanted = set.status.map(|status| status.desired_number_scheduled);
        let spec = set.spec.unwrap_or_default();
        workloads.extend(Workload::of(
            "daemonset",
            &set.metadata,
            wanted,
            Some(&spec.template),
        ));
    }
    for set in replica_sets.unwrap_or_default() {
        let spec = set.spec.unwrap_or_default();
        workloads.extend(Workload::of(
            "replicaset",
            &set.metadata,
            spec.replicas,
            spec.template.as_ref(),
        ));
    }
    for controller in controllers.unwrap_or_default() {
        let spec = controller.spec.unwrap_or_default();
        let metadata = &controller.metadata;
        workloads.extend(Workload::of(
            "replicationcontroller",
            metadata,
            spec.replicas,
            spec.template.as_ref(),
        ));
    }
    workloads
}

async fn list<K: Kind>(client: &Client, namespace: &str) -> Result<Vec<K>, ClientError> {
    let list = client.api::<K>().list(namespace, &ListOptions::default()).await?;
    Ok(list.items)
}
