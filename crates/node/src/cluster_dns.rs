//! Feeds the cluster's DNS: the zone from watches of Services, EndpointSlices and Namespaces ([`run`]), resolvers from
//! a ConfigMap ([`follow_config`]), search paths from the node's pods ([`follow_clients`]).
//! Upstream counterpart: the watches of CoreDNS' `kubernetes` plugin, here once a node.

mod clients;
mod config;
mod endings;

pub use clients::follow_clients;
pub use config::follow_config;
pub use endings::Endings;

use bytes::Bytes;
use coracle_client::{Client, Event, informer};
use coracle_dns::SharedZone;
use coracle_meta::GroupVersionResource;
use coracle_meta::well_known_labels::SERVICE_NAME;
use coracle_reconcile::Key;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Changes that may wait for the zone.
const QUEUE: usize = 256;

/// When the names of each Service were made and changed, readable at any time.
#[derive(Debug, Default)]
pub struct Timeline {
    services: Mutex<HashMap<Key, Names>>,
}

/// When the names of a Service were made and changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// The Service first had its record.
    pub first: Timestamp,
    /// Its names last changed, but for its endpoints.
    pub service: Timestamp,
    /// One of its EndpointSlices last changed: what the addresses of a headless Service come from.
    pub endpoints: Option<Timestamp>,
}

impl Timeline {
    /// When the Service had its record; none if it has none.
    pub fn of(&self, service: &Key) -> Option<Timestamp> {
        self.names(service).map(|names| names.first)
    }

    /// What is known of a Service's names; none if it has none.
    pub fn names(&self, service: &Key) -> Option<Names> {
        self.services.lock().get(service).copied()
    }

    fn has_service(&self, service: Key) {
        let now = Timestamp::now();
        let mut services = self.services.lock();
        let names = services.entry(service).or_insert(Names {
            first: now,
            service: now,
            endpoints: None,
        });
        names.service = now;
    }

    fn has_endpoints(&self, slice: &EndpointSlice) {
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
        if let (Some(namespace), Some(service)) = (&slice.metadata.namespace, service)
            && let Some(names) = self.services.lock().get_mut(&Key::new(namespace, service))
        {
            names.endpoints = Some(Timestamp::now());
        }
    }
}

/// Keeps the zone up to date until dropped. `synced` is told when the zone holds everything that existed at the start.
pub async fn run(
    client: Client,
    endings: Arc<Endings>,
    timeline: Arc<Timeline>,
    synced: oneshot::Sender<()>,
) {
    let zone: SharedZone = endings.zone().clone();
    let watch = |group: &str, plural: &str| {
        let (sender, events) = mpsc::channel(QUEUE);
        let resource = GroupVersionResource::new(group, "v1", plural);
        (
            informer::run(client.clone(), resource, informer::Options::default(), sender),
            events,
        )
    };
    let (watch_services, mut services) = watch("", "services");
    let (watch_slices, mut slices) = watch("discovery.k8s.io", "endpointslices");
    let (watch_namespaces, mut namespaces) = watch("", "namespaces");
    let apply = async {
        let mut synced = Some(synced);
        let (mut have_services, mut have_slices, mut have_namespaces) = (false, false, false);
        loop {
            // Cancel-safe: receiving from a channel loses nothing when another branch wins.
            tokio::select! {
                Some(event) = services.recv() => match event {
                    Event::Applied { key, object, .. } => {
                        if let Some(service) = decode::<Service>(&object) {
                            // Other writes, such as of conditions, are none of the names.
                            if zone.write().upsert_service(&service) {
                                timeline.has_service(key);
                            }
                        }
                    }
                    Event::Deleted { key, .. } => {
                        zone.write().remove_service(&key.namespace, &key.name);
                        timeline.services.lock().remove(&key);
                    }
                    Event::Synced(_) => have_services = true,
                    Event::Progress(_) => {}
                },
                Some(event) = slices.recv() => match event {
                    Event::Applied { object, .. } => {
                        if let Some(slice) = decode::<EndpointSlice>(&object) {
                            if zone.write().upsert_slice(&slice) {
                                timeline.has_endpoints(&slice);
                            }
                            endings.tell();
                        }
                    }
                    Event::Deleted { key, .. } => {
                        zone.write().remove_slice(&key.namespace, &key.name);
                        endings.tell();
                    }
                    Event::Synced(_) => have_slices = true,
                    Event::Progress(_) => {}
                },
                Some(event) = namespaces.recv() => match event {
                    Event::Applied { key, .. } => zone.write().upsert_namespace(&key.name),
                    Event::Deleted { key, .. } => zone.write().remove_namespace(&key.name),
                    Event::Synced(_) => have_namespaces = true,
                    Event::Progress(_) => {}
                },
                else => return,
            }
            if have_services
                && have_slices
                && have_namespaces
                && let Some(synced) = synced.take()
            {
                zone.write().set_synced();
                // Nobody may be waiting any more.
                let _ = synced.send(());
            }
        }
    };
    tokio::join!(watch_services, watch_slices, watch_namespaces, apply);
}

fn decode<K: DeserializeOwned>(object: &Bytes) -> Option<K> {
    serde_json::from_slice(object)
        .map_err(
            |error| tracing::warn!(%error, "object does not decode and means nothing to the cluster DNS"),
        )
        .ok()
}
