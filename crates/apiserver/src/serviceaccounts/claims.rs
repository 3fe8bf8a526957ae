//! What a service account token says, and whether it still holds. Upstream: `pkg/serviceaccount/claims.go`.

use super::{groups, username};
use crate::plugin::Reader;
use crate::request::UserInfo;
use coracle_meta::GroupResource;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Clocks may differ by this many seconds, and a deleted object's tokens hold for this long.
const LEEWAY_SECONDS: i64 = 60;

/// An object by name and uid.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its uid; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl ObjectRef {
    /// The name and uid of an object.
    pub fn of(object: &Value) -> Self {
        Self {
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
        }
    }
}

/// The claim `kubernetes.io`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Namespace of the account, the pod and the secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The node of the pod; without a pod, the node that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<ObjectRef>,
    /// The token dies with this pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectRef>,
    /// The token dies with this secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectRef>,
    /// Whose token it is.
    #[serde(default)]
    pub serviceaccount: ObjectRef,
    /// When the holder should have asked for a new one, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// The claims of a service account token. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom the token is.
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// It ends then.
    #[serde(default)]
    pub exp: i64,
    /// It was issued then.
    #[serde(default)]
    pub iat: i64,
    /// Who issued it.
    #[serde(default)]
    pub iss: String,
    /// Its own identity.
    #[serde(default)]
    pub jti: String,
    /// What it is bound to.
    #[serde(default, rename = "kubernetes.io")]
    pub kubernetes: Bound,
    /// It begins then.
    #[serde(default)]
    pub nbf: i64,
    /// The user name.
    #[serde(default)]
    pub sub: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

impl Claims {
    /// Whether the times hold and everything that the token is bound to still exists. The error is for logs and
    /// TokenReview.
    pub fn check(&self, reader: &dyn Reader, now: Timestamp) -> Result<(), String> {
        let seconds = now.as_second();
        if seconds - LEEWAY_SECONDS > self.exp {
            return Err("service account token has expired".to_owned());
        }
        if seconds + LEEWAY_SECONDS < self.nbf {
            return Err("service account token is not valid yet".to_owned());
        }
        if seconds + LEEWAY_SECONDS < self.iat {
            return Err("service account token is issued in the future".to_owned());
        }
        let Bound {
            namespace,
            node,
            pod,
            secret,
            serviceaccount,
            ..
        } = &self.kubernetes;
        if self.sub != username(namespace, &serviceaccount.name) {
            return Err("service account token subject does not match its claims".to_owned());
        }
        let bound = |resource: &str, namespace: &str, claimed: &ObjectRef| {
            let found = reader.get(&GroupResource::new("", resource), namespace, &claimed.name);
            match found {
                Some(object) if object.uid() == claimed.uid && !deleted_before(&object, seconds) => Ok(()),
                _ => Err("service account token has been invalidated".to_owned()),
            }
        };
        let account = GroupResource::new("", "serviceaccounts");
        match reader.get(&account, namespace, &serviceaccount.name) {
            None => return Err(format!("serviceaccount {:?} not found", serviceaccount.name)),
            Some(found) if found.uid() != serviceaccount.uid => {
                return Err(format!(
                    "service account UID ({}) does not match claim ({})",
                    found.uid(),
                    serviceaccount.uid
                ));
            }
            Some(found) if deleted_before(&found, seconds) => {
                return Err(format!(
                    "service account {namespace}/{} has been deleted",
                    serviceaccount.name
                ));
            }
            Some(_) => {}
        }
        if let Some(secret) = secret {
            bound("secrets", namespace, secret)?;
        }
        match (pod, node) {
            (Some(pod), _) => bound("pods", namespace, pod),
            (None, Some(node)) => bound("nodes", "", node),
            (None, None) => Ok(()),
        }
    }

    /// The user that the token is for.
    pub fn user(&self) -> UserInfo {
        let Bound {
            namespace,
            node,
            pod,
            serviceaccount,
            ..
        } = &self.kubernetes;
        let mut extra = BTreeMap::new();
        let mut add = |key: &str, value: &str| {
            if !value.is_empty() {
                extra.insert(
                    format!("authentication.kubernetes.io/{key}"),
                    vec![value.to_owned()],
                );
            }
        };
        if let Some(pod) = pod {
            add("pod-name", &pod.name);
            add("pod-uid", &pod.uid);
        }
        if let Some(node) = node {
            add("node-name", &node.name);
            add("node-uid", &node.uid);
        }
        if !self.jti.is_empty() {
            add("credential-id", &format!("JTI={}", self.jti));
        }
        UserInfo {
            name: username(namespace, &serviceaccount.name),
            uid: serviceaccount.uid.clone(),
            groups: groups(namespace).into(),
            extra,
        }
    }
}

fn deleted_before(object: &Value, now_seconds: i64) -> bool {
    object
        .str_at(&["metadata", "deletionTimestamp"])
        .and_then(|text| text.parse::<Timestamp>().ok())
        .is_some_and(|deleted| deleted.as_second() < now_seconds - LEEWAY_SECONDS)
}
