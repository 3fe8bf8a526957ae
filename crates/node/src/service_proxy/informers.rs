//! Feeds the proxy from watches.

use super::{Event, ServiceProxy};
use coracle_client::{Client, Event as Seen, informer};
use coracle_dataplane::ServiceKey;
use coracle_reconcile::{Cache, Key, Kind};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::mpsc;

const QUEUE: usize = 256;

/// Watches Services and EndpointSlices and tells the proxy of each change, until the future is dropped.
pub async fn follow(client: Client, proxy: &ServiceProxy) {
    let (sender, mut services) = mpsc::channel(QUEUE);
    let service_informer = watch::<Service>(&client, sender);
    let (sender, mut slices) = mpsc::channel(QUEUE);
    let slice_informer = watch::<EndpointSlice>(&client, sender);
    let mut informers = std::pin::pin!(futures::future::join(service_informer, slice_informer));
    let (mut services_synced, mut slices_synced) = (false, false);
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
        }
        if services_synced && slices_synced {
            proxy.send(Event::Synced);
            (services_synced, slices_synced) = (false, false);
        }
    }
}

fn watch<K: Kind>(client: &Client, sender: mpsc::Sender<Seen>) -> impl Future<Output = ()> + use<K> {
    informer::run(
        client.clone(),
        Cache::resource_of::<K>(),
        informer::Options::default(),
        sender,
    )
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
