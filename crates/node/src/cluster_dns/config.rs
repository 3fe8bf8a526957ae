//! Stub domains and upstream resolvers from the ConfigMap `kube-system/kube-dns`, as they change.

use super::{QUEUE, decode};
use coracle_client::{Client, Event, informer};
use coracle_dns::{ForwardConfig, Forwarder};
use coracle_meta::GroupVersionResource;
use k8s_openapi::api::core::v1::ConfigMap;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";

/// Keeps the forwarder as the ConfigMap says until dropped. Without one, the host's resolvers are asked.
pub async fn follow_config(client: Client, forwarder: Forwarder) {
    let (sender, mut events) = mpsc::channel(QUEUE);
    let options = informer::Options {
        namespace: NAMESPACE.to_owned(),
        field_selector: format!("metadata.name={NAME}"),
        ..informer::Options::default()
    };
    let resource = GroupVersionResource::new("", "v1", "configmaps");
    let apply = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Applied { object, .. } => {
                    if let Some(config) = decode::<ConfigMap>(&object) {
                        apply(&forwarder, &config.data.unwrap_or_default());
                    }
                }
                Event::Deleted { .. } => forwarder.configure(ForwardConfig::default()),
                Event::Synced(_) | Event::Progress(_) => {}
            }
        }
    };
    tokio::join!(informer::run(client, resource, options, sender), apply);
}

/// What cannot be understood changes nothing, as kube-dns had it: a slip must not take the cluster's DNS away.
fn apply(forwarder: &Forwarder, data: &BTreeMap<String, String>) {
    match ForwardConfig::parse(data) {
        Ok(config) => forwarder.configure(config),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "configmap kube-system/kube-dns is not valid and changes nothing"
        ),
    }
}
