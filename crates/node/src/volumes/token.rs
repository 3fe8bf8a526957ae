//! Service account tokens of projected volumes, asked for with TokenRequest and renewed when four fifths of their
//! life are over. Upstream: `pkg/kubelet/token`.

use crate::kubelet::Kubelet;
use coracle_meta::GroupVersionResource;
use coracle_reconcile::Key;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;

/// A token and when to ask for the next one.
#[derive(Debug, Clone)]
pub struct Token {
    /// The bearer token.
    pub text: String,
    /// Until then it is used.
    pub renew_at: Timestamp,
}

/// The tokens of one pod, by audience and life.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<(String, i64), Token>>);

impl Tokens {
    /// The token of a projection, from memory while it is fresh.
    pub async fn get(
        &self,
        kubelet: &Kubelet,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<Token, String> {
        let audience = projection.audience.clone().unwrap_or_default();
        let seconds = projection.expiration_seconds.unwrap_or(3600);
        let key = (audience, seconds);
        let known = self.0.lock().get(&key).cloned();
        if let Some(token) = known.filter(|t| t.renew_at > Timestamp::now()) {
            return Ok(token);
        }
        let token = request(kubelet, pod, &key.0, seconds).await?;
        self.0.lock().insert(key, token.clone());
        Ok(token)
    }
}

async fn request(kubelet: &Kubelet, pod: &Pod, audience: &str, seconds: i64) -> Result<Token, String> {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let account = spec
        .and_then(|s| s.service_account_name.as_deref())
        .filter(|n| !n.is_empty());
    let key = Key::new(text(&pod.metadata.namespace), account.unwrap_or("default"));
    let mut body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "expirationSeconds": seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid},
        }
    });
    if !audience.is_empty() {
        body["spec"]["audiences"] = json!([audience]);
    }
    let accounts = GroupVersionResource::new("", "v1", "serviceaccounts");
    let requested_at = Timestamp::now();
    let answer = kubelet
        .client
        .create_subresource(&accounts, &key, "token", &body)
        .await;
    let answer = answer.map_err(|error| format!("failed to fetch token: {}", error.describe()))?;
    let token = answer.pointer("/status/token").and_then(Value::as_str);
    let token = token.ok_or_else(|| "failed to fetch token: the answer has none".to_owned())?;
    let expires = answer
        .pointer("/status/expirationTimestamp")
        .and_then(Value::as_str);
    let expires = expires.and_then(|t| t.parse::<Timestamp>().ok());
    let life = expires.map_or(SignedDuration::from_secs(seconds), |at| {
        at.duration_since(requested_at)
    });
    Ok(Token {
        text: token.to_owned(),
        renew_at: requested_at + life * 4 / 5,
    })
}
