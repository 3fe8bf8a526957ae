//! The heartbeat: a Lease of this node's name, renewed every 10 seconds in a task of its own, so that nothing the
//! node does can make it look dead. Upstream: `k8s.io/component-helpers/apimachinery/lease`.

use coracle_client::{Client, ClientError};
use coracle_meta::GroupVersionResource;
use coracle_reconcile::{Key, PatchType};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

const NAMESPACE: &str = "kube-node-lease";
const RENEW: Duration = Duration::from_secs(10);
const DURATION_SECONDS: i32 = 40;

/// Renews until dropped. `node_uid` makes the Lease go with the Node object; `recreated` is told when the Lease had to
/// be made anew, for then the Node object may be gone as well.
pub async fn run(client: Client, node: String, node_uid: watch::Receiver<String>, recreated: impl Fn()) {
    let mut ticks = tokio::time::interval(RENEW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let uid = node_uid.borrow().clone();
        match renew(&client, &node, &uid).await {
            Ok(Renewed::AsBefore) => {}
            Ok(Renewed::Anew) => recreated(),
            Err(error) => {
                let error = error.describe();
                tracing::warn!(error, "lease not renewed");
            }
        }
    }
}

enum Renewed {
    AsBefore,
    Anew,
}

async fn renew(client: &Client, node: &str, node_uid: &str) -> Result<Renewed, ClientError> {
    let leases = GroupVersionResource::new("coordination.k8s.io", "v1", "leases");
    let key = Key::new(NAMESPACE, node);
    let spec = json!({
        "holderIdentity": node,
        "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": micro_time(Timestamp::now()),
    });
    let patch = json!({ "spec": spec });
    match client.patch(&leases, &key, "", PatchType::Merge, &patch).await {
        Err(error) if error.is_not_found() => {
            let object = lease(node, node_uid, spec);
            client
                .create(&leases, NAMESPACE, &object)
                .await
                .map(|_| Renewed::Anew)
        }
        other => other.map(|_| Renewed::AsBefore),
    }
}

fn lease(node: &str, node_uid: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": node,
            "namespace": NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}],
        },
        "spec": spec,
    })
}

/// `metav1.MicroTime` on the wire.
fn micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::micro_time;

    #[test]
    fn times_have_six_digits() {
        let at = "2026-01-02T03:04:05.5Z".parse().expect("a time");
        assert_eq!(micro_time(at), "2026-01-02T03:04:05.500000Z");
    }
}
