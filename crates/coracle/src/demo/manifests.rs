//! The tutorial's manifests: the files under `manifests/tutorial`, compiled in.

use anyhow::{Context, Result, anyhow};
use coracle_client::{Client, ClientError};
use coracle_meta::GroupVersionKind;
use coracle_meta::object::ObjectExt;
use coracle_reconcile::Key;
use serde_json::Value;

/// Two Pods of two containers each.
pub const REPLICA_SET: &str = include_str!("../../../../manifests/tutorial/go-demo-2-rs.yml");
/// Database and API apart, with a Service each.
pub const SPLIT: &str = include_str!("../../../../manifests/tutorial/go-demo-2-split.yml");

/// Creates every object of a manifest in the namespace `default`; returns what kubectl would print.
pub async fn create(client: &Client, manifest: &str) -> Result<Vec<String>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifest).context("the manifest is not YAML")?;
    let mut created = Vec::new();
    for document in documents {
        let api_version = document["apiVersion"].as_str().unwrap_or_default();
        let kind = document["kind"].as_str().unwrap_or_default();
        let gvk = GroupVersionKind::from_api_version(api_version, kind);
        let resource = coracle_api::resources::by_gvk(&gvk)
            .ok_or_else(|| anyhow!("no matches for kind {kind:?} in version {api_version:?}"))?;
        let name = document.name().to_owned();
        client
            .create(&resource.gvr(), "default", &document)
            .await
            .with_context(|| format!("cannot create {kind} {name}"))?;
        let group = if gvk.group.is_empty() {
            String::new()
        } else {
            format!(".{}", gvk.group)
        };
        created.push(format!("{}{group}/{name} created", kind.to_lowercase()));
    }
    Ok(created)
}

/// What `kubectl expose rs NAME --name=SERVICE --target-port=PORT --type=NodePort` does: a Service with the selector
/// of the ReplicaSet, its port the target port.
pub async fn expose(client: &Client, replica_set: &str, service: &str, target_port: u16) -> Result<Value> {
    let replica_sets = coracle_meta::GroupVersionResource::new("apps", "v1", "replicasets");
    let owner = client
        .get(&replica_sets, &Key::new("default", replica_set))
        .await?;
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": service, "namespace": "default"},
        "spec": {
            "type": "NodePort",
            "selector": owner["spec"]["selector"]["matchLabels"],
            "ports": [{"port": target_port, "targetPort": target_port, "protocol": "TCP"}],
        },
    });
    let services = coracle_meta::GroupVersionResource::new("", "v1", "services");
    client
        .create(&services, "default", &object)
        .await
        .map_err(ClientError::into)
}
