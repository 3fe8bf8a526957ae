//! Requests for objects, typed and untyped. Upstream: `k8s.io/client-go/kubernetes`, `k8s.io/client-go/dynamic`.

use crate::error::ClientError;
use crate::request::{DeleteOptions, ListOptions, Query, patch_content_type, path};
use crate::transport::{self, Body, Transport};
use crate::watch::WatchStream;
use bytes::Bytes;
use coracle_meta::{GroupVersionResource, Status};
use coracle_reconcile::{Action, Cache, Key, Kind, PatchType};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::marker::PhantomData;
use std::sync::Arc;

const JSON: &str = "application/json";

/// Asks an API server under the identity of its transport. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    user_agent: HeaderValue,
    authorization: Option<HeaderValue>,
}

/// A typed page of a list.
#[derive(Debug, Clone)]
pub struct List<K> {
    /// The revision that the list shows.
    pub resource_version: String,
    /// Asks for the next page; empty on the last.
    pub continue_token: String,
    /// The objects.
    pub items: Vec<K>,
}

#[derive(Deserialize)]
struct WireList<K> {
    metadata: WireListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<K>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireListMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    continue_token: String,
}

impl Client {
    /// Asks through a transport.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self {
            transport,
            user_agent: HeaderValue::from_static("coracle"),
            authorization: None,
        }
    }

    /// Names itself to the server. A name that cannot be a header is not sent.
    pub fn with_user_agent(mut self, name: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(name) {
            self.user_agent = value;
        }
        self
    }

    /// Sends a bearer token with every request.
    pub fn with_bearer_token(mut self, token: &str) -> Result<Self, http::header::InvalidHeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// Sends any request: method, path with query, content type and body. A status of 400 and above is an error.
    pub async fn send(
        &self,
        method: Method,
        uri: &str,
        content_type: &str,
        body: Body,
    ) -> Result<Response<Body>, ClientError> {
        let mut request = Request::builder()
            .method(&method)
            .uri(uri)
            .header(ACCEPT, JSON)
            .header(USER_AGENT, &self.user_agent);
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(body).map_err(|source| ClientError::Request {
            request: format!("{method} {uri}"),
            source,
        })?;
        let response = self.transport.send(request).await?;
        if response.status().as_u16() < 400 {
            return Ok(response);
        }
        let code = response.status();
        let bytes = collect(response, &method, uri).await?;
        Err(ClientError::Refused(Box::new(refusal(code, &bytes))))
    }

    /// Sends any request and reads the whole answer.
    pub async fn bytes(
        &self,
        method: Method,
        uri: &str,
        content_type: &str,
        body: Body,
    ) -> Result<Bytes, ClientError> {
        let response = self.send(method.clone(), uri, content_type, body).await?;
        collect(response, &method, uri).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: &str,
        content_type: &str,
        body: Body,
    ) -> Result<T, ClientError> {
        let bytes = self.bytes(method.clone(), uri, content_type, body).await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Decode {
            request: format!("{method} {uri}"),
            source,
        })
    }

    /// GET of an object.
    pub async fn get(&self, resource: &GroupVersionResource, key: &Key) -> Result<Value, ClientError> {
        let uri = path(resource, &key.namespace, &key.name, "");
        self.json(Method::GET, &uri, "", transport::empty()).await
    }

    /// GET of a collection, as the server sent it. An empty namespace lists all of them.
    pub async fn list(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Bytes, ClientError> {
        let uri = path(resource, namespace, "", "") + options.query().as_str();
        self.bytes(Method::GET, &uri, "", transport::empty()).await
    }

    /// Changes of a collection after `options.resource_version`, with bookmarks.
    pub async fn watch(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<WatchStream, ClientError> {
        let uri = path(resource, namespace, "", "") + options.watch_query().as_str();
        let response = self.send(Method::GET, &uri, "", transport::empty()).await?;
        Ok(WatchStream::new(format!("GET {uri}"), response.into_body()))
    }

    /// POST of an object.
    pub async fn create(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        object: &Value,
    ) -> Result<Value, ClientError> {
        let uri = path(resource, namespace, "", "");
        self.json(Method::POST, &uri, JSON, encoded(object)).await
    }

    /// POST to a subresource of an object, such as `binding` or `eviction` of a pod.
    pub async fn create_subresource(
        &self,
        resource: &GroupVersionResource,
        key: &Key,
        subresource: &str,
        object: &Value,
    ) -> Result<Value, ClientError> {
        let uri = path(resource, &key.namespace, &key.name, subresource);
        self.json(Method::POST, &uri, JSON, encoded(object)).await
    }

    /// PUT of an object or, if not empty, a subresource.
    pub async fn update(
        &self,
        resource: &GroupVersionResource,
        key: &Key,
        subresource: &str,
        object: &Value,
    ) -> Result<Value, ClientError> {
        let uri = path(resource, &key.namespace, &key.name, subresource);
        self.json(Method::PUT, &uri, JSON, encoded(object)).await
    }

    /// PATCH of an object or, if not empty, a subresource.
    pub async fn patch(
        &self,
        resource: &GroupVersionResource,
        key: &Key,
        subresource: &str,
        patch_type: PatchType,
        patch: &Value,
    ) -> Result<Value, ClientError> {
        let uri = path(resource, &key.namespace, &key.name, subresource);
        let content_type = patch_content_type(patch_type);
        self.json(Method::PATCH, &uri, content_type, encoded(patch)).await
    }

    /// Server-side apply of an object as `manager`; `force` takes over what others own.
    pub async fn apply(
        &self,
        resource: &GroupVersionResource,
        key: &Key,
        manager: &str,
        force: bool,
        object: &Value,
    ) -> Result<Value, ClientError> {
        let query = Query::default()
            .pair("fieldManager", manager)
            .pair("force", if force { "true" } else { "" });
        let uri = path(resource, &key.namespace, &key.name, "") + query.as_str();
        let content_type = "application/apply-patch+yaml";
        self.json(Method::PATCH, &uri, content_type, encoded(object))
            .await
    }

    /// DELETE of an object. The answer is the object, or a `Status`.
    pub async fn delete(
        &self,
        resource: &GroupVersionResource,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<Value, ClientError> {
        let uri = path(resource, &key.namespace, &key.name, "");
        let body = encoded(&options.body());
        self.json(Method::DELETE, &uri, JSON, body).await
    }

    /// Executes a write that a controller decided. Events are the recorder's and answer Null here.
    pub async fn execute(&self, action: &Action) -> Result<Value, ClientError> {
        match action {
            Action::Create {
                resource,
                namespace,
                object,
            } => self.create(resource, namespace, object).await,
            Action::CreateSubresource {
                resource,
                key,
                subresource,
                object,
            } => self.create_subresource(resource, key, subresource, object).await,
            Action::Update {
                resource,
                key,
                subresource,
                object,
            } => self.update(resource, key, subresource, object).await,
            Action::Patch {
                resource,
                key,
                subresource,
                patch_type,
                body,
            } => self.patch(resource, key, subresource, *patch_type, body).await,
            Action::Delete {
                resource,
                key,
                precondition,
                propagation,
                grace_seconds,
            } => {
                let options = DeleteOptions {
                    precondition: precondition.clone(),
                    propagation: *propagation,
                    grace_seconds: *grace_seconds,
                };
                self.delete(resource, key, &options).await
            }
            Action::Event { .. } => Ok(Value::Null),
        }
    }

    /// Requests for one typed kind.
    pub fn api<K: Kind>(&self) -> Api<K> {
        Api {
            client: self.clone(),
            resource: Cache::resource_of::<K>(),
            kind: PhantomData,
        }
    }
}

/// Requests for one typed kind.
pub struct Api<K> {
    client: Client,
    resource: GroupVersionResource,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Api<K> {
    /// GET of an object.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<K, ClientError> {
        let uri = path(&self.resource, namespace, name, "");
        self.client.json(Method::GET, &uri, "", transport::empty()).await
    }

    /// GET of a collection. An empty namespace lists all of them.
    pub async fn list(&self, namespace: &str, options: &ListOptions) -> Result<List<K>, ClientError> {
        let bytes = self.client.list(&self.resource, namespace, options).await?;
        let list: WireList<K> = serde_json::from_slice(&bytes).map_err(|source| ClientError::Decode {
            request: format!("GET {}", path(&self.resource, namespace, "", "")),
            source,
        })?;
        Ok(List {
            resource_version: list.metadata.resource_version,
            continue_token: list.metadata.continue_token,
            items: list.items,
        })
    }

    /// Changes of a collection after `options.resource_version`.
    pub async fn watch(&self, namespace: &str, options: &ListOptions) -> Result<WatchStream, ClientError> {
        self.client.watch(&self.resource, namespace, options).await
    }

    /// POST of an object, in the namespace that it names.
    pub async fn create(&self, object: &K) -> Result<K, ClientError> {
        let uri = path(&self.resource, &Key::of(object).namespace, "", "");
        self.client.json(Method::POST, &uri, JSON, encoded(object)).await
    }

    /// PUT of an object.
    pub async fn update(&self, object: &K) -> Result<K, ClientError> {
        self.put(object, "").await
    }

    /// PUT of an object's status.
    pub async fn update_status(&self, object: &K) -> Result<K, ClientError> {
        self.put(object, "status").await
    }

    async fn put(&self, object: &K, subresource: &str) -> Result<K, ClientError> {
        let key = Key::of(object);
        let uri = path(&self.resource, &key.namespace, &key.name, subresource);
        self.client.json(Method::PUT, &uri, JSON, encoded(object)).await
    }

    /// PATCH of an object or, if not empty, a subresource.
    pub async fn patch(
        &self,
        key: &Key,
        subresource: &str,
        patch_type: PatchType,
        patch: &Value,
    ) -> Result<K, ClientError> {
        let uri = path(&self.resource, &key.namespace, &key.name, subresource);
        let content_type = patch_content_type(patch_type);
        self.client
            .json(Method::PATCH, &uri, content_type, encoded(patch))
            .await
    }

    /// DELETE of an object.
    pub async fn delete(&self, key: &Key, options: &DeleteOptions) -> Result<Value, ClientError> {
        self.client.delete(&self.resource, key, options).await
    }
}

/// JSON values and API objects have string keys only, so they always serialise.
fn encoded(object: &impl serde::Serialize) -> Body {
    transport::full(serde_json::to_vec(object).expect("API objects have string keys only"))
}

async fn collect(response: Response<Body>, method: &Method, uri: &str) -> Result<Bytes, ClientError> {
    let collected = response.into_body().collect().await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|source| ClientError::Body {
            request: format!("{method} {uri}"),
            source,
        })
}

/// The server's `Status`; a proxy in between may answer with plain text.
fn refusal(code: http::StatusCode, bytes: &[u8]) -> Status {
    match serde_json::from_slice::<Status>(bytes) {
        Ok(status) if status.kind == "Status" => status,
        _ => {
            let reason = code.canonical_reason().unwrap_or("Unknown").replace(' ', "");
            Status::failure(code.as_u16(), &reason, String::from_utf8_lossy(bytes).trim())
        }
    }
}
