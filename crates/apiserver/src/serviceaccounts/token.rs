//! `serviceaccounts/NAME/token`: issues a token, bound to a pod, a secret or a node.
//! Upstream: `pkg/registry/core/serviceaccount/storage/token.go`.

use super::claims::{Bound, Claims, ObjectRef};
use super::keys::Keys;
use super::username;
use crate::admission::node_restriction::check_token_request;
use crate::ephemeral;
use crate::plugin::{Connector, Reader};
use crate::request::{Attributes, Body};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, FieldPath, GroupResource, Status};
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

const GROUP: &str = "authentication.k8s.io";

/// What the injected volume of pods asks for; such tokens live a year and count as late after this time.
const WARN_ONLY_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// Issues tokens for service accounts.
pub struct TokenRequests {
    keys: Arc<Keys>,
    issuer: String,
    audiences: Vec<String>,
}

impl TokenRequests {
    /// `issuer` is the URL in the tokens; `audiences` are those of this API server.
    pub fn new(keys: Arc<Keys>, issuer: impl Into<String>, audiences: Vec<String>) -> Self {
        Self {
            keys,
            issuer: issuer.into(),
            audiences,
        }
    }

    /// Completes a TokenRequest for the account that the attributes name.
    pub fn issue(
        &self,
        attributes: &Attributes,
        mut request: Value,
        reader: &dyn Reader,
        now: Timestamp,
    ) -> Result<Value, Status> {
        let Attributes { namespace, name, .. } = attributes;
        let accounts = GroupResource::new("", "serviceaccounts");
        check_metadata(&request, namespace, name)?;
        check_token_request(attributes, &request, reader)?;
        let account = reader
            .get(&accounts, namespace, name)
            .ok_or_else(|| Status::not_found(&accounts, name))?;
        let requests = GroupResource::new(GROUP, "TokenRequest");
        if !request.uid().is_empty() && request.uid() != account.uid() {
            let why = format!(
                "the UID in the token request ({}) does not match the UID of the service account ({})",
                request.uid(),
                account.uid()
            );
            return Err(Status::conflict(&requests, name, why));
        }

        let seconds = default_expiration(&mut request)?;
        let audiences = self.default_audiences(&mut request)?;
        let bound = bind(&request, &account, reader)?;
        let extended = bound.pod.is_some()
            && seconds == WARN_ONLY_SECONDS
            && audiences.iter().all(|a| self.audiences.contains(a));
        let issued = now.as_second();
        let claims = Claims {
            aud: audiences,
            exp: issued + if extended { EXTENDED_SECONDS } else { seconds },
            iat: issued,
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            nbf: issued,
            sub: username(namespace, name),
            kubernetes: Bound {
                warnafter: extended.then_some(issued + seconds),
                ..bound
            },
        };
        let token = self
            .keys
            .sign(&claims)
            .map_err(|error| Status::internal(format!("failed to generate token: {error}")))?;
        let expires = now + SignedDuration::from_secs(seconds);
        request["metadata"] = json!({
            "name": name,
            "namespace": namespace,
            "uid": account.uid(),
            "creationTimestamp": whole_seconds(now),
        });
        request["status"] = json!({"token": token, "expirationTimestamp": whole_seconds(expires)});
        Ok(request)
    }

    fn default_audiences(&self, request: &mut Value) -> Result<Vec<String>, Status> {
        let given: Vec<String> = request
            .at(&["spec", "audiences"])
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect();
        if !given.is_empty() {
            return Ok(given);
        }
        request["spec"]["audiences"] = json!(self.audiences);
        Ok(self.audiences.clone())
    }
}

fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn check_metadata(request: &Value, namespace: &str, name: &str) -> Result<(), Status> {
    let checks = [
        ("metadata.name", request.name(), name, "name"),
        ("metadata.namespace", request.namespace(), namespace, "namespace"),
    ];
    for (path, given, expected, what) in checks {
        if !given.is_empty() && given != expected {
            let detail = format!("must match the service account {what} if specified");
            let error = FieldError::invalid(&FieldPath::new(path), given, &detail);
            return Err(Status::invalid(GROUP, "TokenRequest", name, &[error]));
        }
    }
    Ok(())
}

/// `spec.expirationSeconds`, an hour unless given.
fn default_expiration(request: &mut Value) -> Result<i64, Status> {
    if !request.get("spec").is_some_and(Value::is_object) {
        request["spec"] = json!({});
    }
    let given = &mut request["spec"]["expirationSeconds"];
    if given.is_null() {
        *given = json!(3600);
    }
    let field = FieldPath::new("spec.expirationSeconds");
    let seconds = given.as_i64().unwrap_or_default();
    let detail = if seconds < 600 {
        "may not specify a duration less than 10 minutes"
    } else if seconds > 1 << 32 {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(seconds);
    };
    let error = FieldError::invalid(&field, given.clone(), detail);
    Err(Status::invalid(GROUP, "TokenRequest", "", &[error]))
}

/// Looks up what the token shall be bound to.
fn bind(request: &Value, account: &Value, reader: &dyn Reader) -> Result<Bound, Status> {
    let (namespace, name) = (account.namespace(), account.name());
    let mut bound = Bound {
        namespace: namespace.to_owned(),
        serviceaccount: ObjectRef::of(account),
        ..Bound::default()
    };
    let Some(reference) = request.at(&["spec", "boundObjectRef"]).filter(|r| r.is_object()) else {
        return Ok(bound);
    };
    let text = |key: &str| reference.str_at(&[key]).unwrap_or_default();
    let (api_version, kind, object_name) = (text("apiVersion"), text("kind"), text("name"));
    let find = |resource: &str, namespace: &str, name: &str| {
        let resource = GroupResource::new("", resource);
        reader
            .get(&resource, namespace, name)
            .ok_or_else(|| Status::not_found(&resource, name))
    };
    let object = match (api_version, kind) {
        ("v1", "Pod") => {
            let pod = find("pods", namespace, object_name)?;
            if pod.str_at(&["spec", "serviceAccountName"]) != Some(name) {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {name:?} to pod running with different serviceaccount name."
                )));
            }
            bound.pod = Some(ObjectRef::of(&pod));
            bound.node = pod
                .str_at(&["spec", "nodeName"])
                .filter(|node| !node.is_empty())
                .map(|node| ObjectRef {
                    name: node.to_owned(),
                    uid: find("nodes", "", node)
                        .map(|n| n.uid().to_owned())
                        .unwrap_or_default(),
                });
            pod
        }
        ("v1", "Node") => {
            let node = find("nodes", "", object_name)?;
            bound.node = Some(ObjectRef::of(&node));
            node
        }
        ("v1", "Secret") => {
            let secret = find("secrets", namespace, object_name)?;
            bound.secret = Some(ObjectRef::of(&secret));
            secret
        }
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {api_version}, Kind={kind}"
            )));
        }
    };
    let uid = text("uid");
    if !uid.is_empty() && uid != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&GroupResource::new("", kind), object_name, why));
    }
    Ok(bound)
}

impl Connector for TokenRequests {
    fn connect(
        &self,
        attributes: Attributes,
        request: Request<Body>,
        reader: Arc<dyn Reader>,
    ) -> BoxFuture<'static, Result<Response<Body>, Status>> {
        let this = Self::new(self.keys.clone(), self.issuer.clone(), self.audiences.clone());
        Box::pin(async move {
            if request.method() != Method::POST {
                return Err(Status::method_not_supported(
                    &attributes.group_resource(),
                    &attributes.verb,
                ));
            }
            let object = ephemeral::read(request, "authentication.k8s.io/v1", "TokenRequest").await?;
            let issued = this.issue(&attributes, object, &*reader, Timestamp::now())?;
            Ok(ephemeral::created(&issued))
        })
    }
}

#[cfg(test)]
mod tests;
