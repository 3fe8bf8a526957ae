//! Feeds the proxy from watches.

use super::{Event, ServiceProxy};
use coracle_client::{Client, Event as Seen, informer};
use coracle_dataplane::{PolicyId, ServiceKey};
use coracle_meta::GroupVersionResource;
use coracle_reconcile::{Cache, Key, Kind, Revision};
use futures::future::{BoxFuture, FutureExt, join_all};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use std::sync::Arc;
use tokio::sync::mpsc;

const QUEUE: usize = 256;

/// As whom the proxy watches.
#[derive(Clone)]
pub struct Clients {
    /// Reads Services and EndpointSlices.
    pub services: Client,
    /// Reads NetworkPolicies, namespaces and all pods; none if policies are not enforced.
    pub policies: Option<Client>,
    /// Reads the pods of this node, whose ports may be ports of the node.
    pub node: Client,
    /// Knows when a write was durable; none where the API server is another process.
    pub written: Option<Written>,
}

/// When the write of a resource that made a revision was durable, as long as that is remembered.
pub type Written = Arc<dyn Fn(&GroupVersionResource, u64) -> Option<Timestamp> + Send + Sync>;

/// Watches what packet rules are made from and tells the proxy of each change, until the future is dropped.
pub async fn follow(clients: Clients, node_name: &str, proxy: &ServiceProxy) {
    let (sender, mut seen) = mpsc::channel(QUEUE);
    let mut watches = Watches {
        sender,
        running: Vec::new(),
        written: clients.written.clone(),
    };
    let everything = informer::Options::default;
    watches.add::<Service>(&clients.services, everything(), |seen| match seen {
        One::Is(service) => Event::Service(service),
        One::Gone(key) => Event::ServiceGone(ServiceKey::new(key.namespace, key.name)),
    });
    watches.add::<EndpointSlice>(&clients.services, everything(), |seen| match seen {
        One::Is(slice) => Event::EndpointSlice(slice),
        One::Gone(key) => Event::EndpointSliceGone {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        },
    });
    // What counts as a change of a Service ends here.
    watches.written = None;
    let pod = |seen: One<Pod>| match seen {
        One::Is(pod) => Event::Pod(pod),
        One::Gone(key) => Event::PodGone {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        },
    };
    match &clients.policies {
        None => {
            let own = informer::Options {
                field_selector: format!("spec.nodeName={node_name}"),
                ..everything()
            };
            watches.add::<Pod>(&clients.node, own, pod);
        }
        Some(client) => {
            watches.add::<Pod>(client, everything(), pod);
            watches.add::<Namespace>(client, everything(), |seen| match seen {
                One::Is(namespace) => Event::Namespace(namespace),
                One::Gone(key) => Event::NamespaceGone(key.name.to_string()),
            });
            watches.add::<NetworkPolicy>(client, everything(), |seen| match seen {
                One::Is(policy) => Event::NetworkPolicy(policy),
                One::Gone(key) => Event::NetworkPolicyGone(PolicyId {
                    namespace: key.namespace.to_string(),
                    name: key.name.to_string(),
                }),
            });
        }
    }
    let Watches { sender, running, .. } = watches;
    // Only the watches hold it from here on.
    drop(sender);
    let mut unsynced = running.len();
    let mut running = std::pin::pin!(join_all(running));
    loop {
        // Safe to cancel: what is not chosen keeps its event, and goes on where it was.
        tokio::select! {
            _ = &mut running => return,
            Some(told) = seen.recv() => match told {
                Some((event, written)) => {
                    if let Some(written) = written {
                        proxy.metrics().seen(written, Timestamp::now());
                    }
                    proxy.send(event);
                }
                None => {
                    unsynced = unsynced.saturating_sub(1);
                    if unsynced == 0 {
                        proxy.send(Event::Synced);
                    }
                }
            },
        }
    }
}

/// What a watch tells of an object.
enum One<K> {
    Is(Box<K>),
    Gone(Key),
}

/// The watches, each with what passes on its events.
struct Watches {
    /// `None` says that a watch has told of everything for the first time.
    sender: mpsc::Sender<Option<(Event, Option<Timestamp>)>>,
    running: Vec<BoxFuture<'static, ()>>,
    /// For the watches that are added now.
    written: Option<Written>,
}

impl Watches {
    fn add<K: Kind>(
        &mut self,
        client: &Client,
        options: informer::Options,
        event: impl Fn(One<K>) -> Event + Send + 'static,
    ) {
        let (sender, mut seen) = mpsc::channel(QUEUE);
        let resource = Cache::resource_of::<K>();
        let watch = informer::run(client.clone(), resource.clone(), options, sender);
        let told = self.sender.clone();
        let written = self.written.clone();
        let pass_on = async move {
            let mut synced = false;
            while let Some(seen) = seen.recv().await {
                // What was there before is no news.
                let written = |revision: Revision| match &written {
                    Some(written) if synced => written(&resource, revision.0),
                    _ => None,
                };
                let news = match seen {
                    Seen::Applied {
                        key,
                        revision,
                        object,
                    } => match decode::<K>(&key, &object) {
                        Some(object) => Some((event(One::Is(object)), written(revision))),
                        None => continue,
                    },
                    Seen::Deleted { key, revision } => Some((event(One::Gone(key)), written(revision))),
                    Seen::Synced(_) if !synced => {
                        synced = true;
                        None
                    }
                    Seen::Synced(_) | Seen::Progress(_) => continue,
                };
                if told.send(news).await.is_err() {
                    return;
                }
            }
        };
        self.running
            .push(futures::future::join(watch, pass_on).map(drop).boxed());
    }
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
