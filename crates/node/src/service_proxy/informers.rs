//! Feeds the proxy from watches.

use super::{Event, ServiceProxy};
use coracle_client::{Client, Event as Seen, informer};
use coracle_dataplane::ServiceKey;
use coracle_reconcile::{Cache, Key, Kind};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::mpsc;

const QUEUE: usize = 256;

/// Watches Services and EndpointSlices and, as the node, the pods on it, whose ports may be ports of the node; tells
/// the proxy of each change, until the future is dropped.
pub async fn follow(client: Client, node: Client, node_name: &str, proxy: &ServiceProxy) {
    let everything = informer::Options::default;
    let (sender, mut services) = mpsc::channel(QUEUE);
    let service_informer = watch::<Service>(&client, everything(), sender);
    let (sender, mut slices) = mpsc::channel(QUEUE);
    let slice_informer = watch::<EndpointSlice>(&client, everything(), sender);
    let (sender, mut pods) = mpsc::channel(QUEUE);
    let own = informer::Options {
        field_selector: format!("spec.nodeName={node_name}"),
        ..everything()
    };
    let pod_informer = watch::<Pod>(&node, own, sender);
    let informers = futures::future::join3(service_informer, slice_informer, pod_informer);
    let mut informers = std::pin::pin!(informers);
    let (mut services_synced, mut slices_synced, mut pods_synced) = (false, false, false);
    loop {
        // Safe to cancel: a receiver that is not chosen keeps its event, and the informers go on where they were.
        tokio::select! {
            _ = &mut informers => return,
            Some(event) = services.recv() => match event {
                Seen::Applied { key, object, .. } => {
                    if let Some(service) = decode::<Service>(&key, &object) {
                        proxy.send(Event::Service(service));
                    }
                }
                Seen::Deleted { key, .. } => {
                    proxy.send(Event::ServiceGone(ServiceKey::new(key.namespace, key.name)));
                }
                Seen::Synced(_) => services_synced = true,
                Seen::Progress(_) => continue,
            },
            Some(event) = slices.recv() => match event {
                Seen::Applied { key, object, .. } => {
                    if let Some(slice) = decode::<EndpointSlice>(&key, &object) {
                        proxy.send(Event::EndpointSlice(slice));
                    }
                }
                Seen::Deleted { key, .. } => proxy.send(Event::EndpointSliceGone {
                    namespace: key.namespace.to_string(),
                    name: key.name.to_string(),
                }),
                Seen::Synced(_) => slices_synced = true,
                Seen::Progress(_) => continue,
            },
            Some(event) = pods.recv() => match event {
                Seen::Applied { key, object, .. } => {
                    if let Some(pod) = decode::<Pod>(&key, &object) {
                        proxy.send(Event::Pod(pod));
                    }
                }
                Seen::Deleted { key, .. } => proxy.send(Event::PodGone {
                    namespace: key.namespace.to_string(),
                    name: key.name.to_string(),
                }),
                Seen::Synced(_) => pods_synced = true,
                Seen::Progress(_) => continue,
            },
        }
        if services_synced && slices_synced && pods_synced {
            proxy.send(Event::Synced);
            (services_synced, slices_synced, pods_synced) = (false, false, false);
        }
    }
}

fn watch<K: Kind>(
    client: &Client,
    options: informer::Options,
    sender: mpsc::Sender<Seen>,
) -> impl Future<Output = ()> + use<K> {
    informer::run(client.clone(), Cache::resource_of::<K>(), options, sender)
}

fn decode<K: Kind>(key: &Key, object: &[u8]) -> Option<Box<K>> {
    match serde_json::from_slice(object) {
        Ok(object) => Some(Box::new(object)),
        Err(error) => {
            tracing::error!(
                kind = K::KIND,
                namespace = %key.namespace,
                name = %key.name,
                error = &error as &dyn std::error::Error,
                "cannot decode an object"
            );
            None
        }
    }
}
