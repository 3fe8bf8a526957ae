//! Writes the status of one pod: at once, only what changed, one write at a time, the newest wins.
//! Upstream: `pkg/kubelet/status/status_manager.go`.

use coracle_client::{Client, ClientError};
use coracle_meta::GroupVersionResource;
use coracle_reconcile::{Key, PatchType};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};
use std::time::Duration;

const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// See the file's head.
pub struct StatusWriter {
    client: Client,
    key: Key,
    uid: String,
    /// What the API has.
    written: Map<String, Value>,
    /// What it shall have.
    wanted: Option<Map<String, Value>>,
    in_flight: Option<Write>,
    wait: Duration,
}

struct Write {
    status: Map<String, Value>,
    answer: BoxFuture<'static, Result<Value, ClientError>>,
}

impl StatusWriter {
    /// For a pod whose status in the API is `status`.
    pub fn new(client: Client, key: Key, uid: String, status: Option<&PodStatus>) -> Self {
        Self {
            client,
            key,
            uid,
            written: status.map(object).unwrap_or_default(),
            wanted: None,
            in_flight: None,
            wait: SHORTEST_WAIT,
        }
    }

    /// Takes a new status.
    pub fn put(&mut self, status: &PodStatus) {
        self.wanted = Some(object(status));
        self.begin(Duration::ZERO);
    }

    /// Whether the API has the newest status, or can have it no more.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.wanted.is_none()
    }

    /// Resolves when a write has come to its end; never while nothing is being written. Cancel-safe: the write stays
    /// in self.
    pub async fn step(&mut self) {
        let Some(write) = &mut self.in_flight else {
            return std::future::pending().await;
        };
        let result = (&mut write.answer).await;
        let Some(write) = self.in_flight.take() else {
            return;
        };
        match result {
            Ok(_) => {
                self.written = write.status;
                self.wait = SHORTEST_WAIT;
                self.begin(Duration::ZERO);
            }
            // The object is gone, or another pod has taken its name.
            Err(error) if error.is_not_found() || error.is_conflict() => self.wanted = None,
            Err(error) => {
                let (pod, error) = (&self.key, error.describe());
                tracing::warn!(%pod, error, "status not written");
                self.wanted.get_or_insert(write.status);
                self.begin(self.wait);
                self.wait = (self.wait * 2).min(LONGEST_WAIT);
            }
        }
    }

    fn begin(&mut self, delay: Duration) {
        if self.in_flight.is_some() {
            return;
        }
        let Some(status) = self.wanted.take() else { return };
        let Some(patch) = difference(&self.written, &status) else {
            return;
        };
        let body = json!({"metadata": {"uid": self.uid}, "status": patch});
        let (client, key) = (self.client.clone(), self.key.clone());
        let answer = async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let pods = GroupVersionResource::new("", "v1", "pods");
            client
                .patch(&pods, &key, "status", PatchType::Strategic, &body)
                .await
        };
        self.in_flight = Some(Write {
            status,
            answer: Box::pin(answer),
        });
    }
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

/// The strategic merge patch from one status to another: changed fields whole, vanished ones null. Lists that merge
/// by key (conditions, addresses) name what is to go.
fn difference(old: &Map<String, Value>, new: &Map<String, Value>) -> Option<Value> {
    let mut patch = Map::new();
    for (field, value) in new {
        if old.get(field) != Some(value) {
            patch.insert(field.clone(), merged_list(field, old.get(field), value));
        }
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn merged_list(field: &str, old: Option<&Value>, new: &Value) -> Value {
    let key = match field {
        "conditions" => "type",
        "podIPs" | "hostIPs" => "ip",
        _ => return new.clone(),
    };
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let new = items(new);
    let gone = old.map(items).unwrap_or_default().into_iter().filter(|item| {
        let name = item.get(key);
        new.iter().all(|other| other.get(key) != name)
    });
    let deletions: Vec<Value> = gone
        .map(|item| json!({"$patch": "delete", key: item.get(key)}))
        .collect();
    Value::Array(new.into_iter().chain(deletions).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_are_sent() {
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        let old = map(
            json!({"phase": "Pending", "reason": "x", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "A", "status": "False"}, {"type": "B", "status": "True"}]}),
        );
        let new = map(json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [{"type": "A", "status": "True"}]}));
        assert_eq!(
            difference(&old, &new),
            Some(json!({"phase": "Running", "reason": null,
                "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}],
                "conditions": [{"type": "A", "status": "True"}, {"$patch": "delete", "type": "B"}]}))
        );
        assert_eq!(difference(&new, &new), None);
    }
}
