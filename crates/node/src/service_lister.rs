//! The Services that containers are told of in their environment. Upstream: `kl.serviceLister`.

use coracle_client::{Client, Event, informer};
use coracle_meta::GroupVersionResource;
use coracle_reconcile::Key;
use k8s_openapi::api::core::v1::Service;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

const QUEUE: usize = 256;
const SYNCED_WITHIN: Duration = Duration::from_secs(10);

/// All Services, kept up to date by [`ServiceLister::run`].
pub struct ServiceLister {
    services: RwLock<BTreeMap<Key, Arc<Service>>>,
    synced: watch::Sender<bool>,
}

impl ServiceLister {
    /// Empty, not synced.
    pub fn new() -> Self {
        Self {
            services: RwLock::default(),
            synced: watch::Sender::new(false),
        }
    }

    /// Follows the API until dropped.
    pub async fn run(&self, client: Client) {
        let (sender, mut events) = mpsc::channel(QUEUE);
        let resource = GroupVersionResource::new("", "v1", "services");
        let informer = informer::run(client, resource, informer::Options::default(), sender);
        let apply = async {
            while let Some(event) = events.recv().await {
                match event {
                    Event::Applied { key, object, .. } => match serde_json::from_slice::<Service>(&object) {
                        Ok(mut service) => {
                            service.metadata.managed_fields = None;
                            self.services.write().insert(key, Arc::new(service));
                        }
                        Err(error) => tracing::warn!(%key, %error, "service does not decode"),
                    },
                    Event::Deleted { key, .. } => {
                        self.services.write().remove(&key);
                    }
                    Event::Synced(_) => {
                        self.synced.send_replace(true);
                    }
                    Event::Progress(_) => {}
                }
            }
        };
        tokio::join!(informer, apply);
    }

    /// All Services, once they have been listed: a container started before would miss `KUBERNETES_SERVICE_HOST`. The
    /// error is for people.
    pub async fn list(&self) -> Result<Vec<Arc<Service>>, String> {
        let mut synced = self.synced.subscribe();
        match tokio::time::timeout(SYNCED_WITHIN, synced.wait_for(|synced| *synced)).await {
            Ok(_) => Ok(self.services.read().values().cloned().collect()),
            Err(_) => {
                Err("services have not yet been read at least once, cannot construct envvars".to_owned())
            }
        }
    }
}
