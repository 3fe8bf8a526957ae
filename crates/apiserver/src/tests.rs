//! The server as its clients see it, without a network.

use crate::{ApiServer, Body, Config, UserInfo};
use coracle_store::Store;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

mod bootstrap;
mod collections;
mod deletes;
mod plugins;
mod reads;
mod subresources;
mod watches;
mod writes;

/// A server over an empty store, and its administrator.
struct Server(ApiServer);

fn server() -> Server {
    with_config(Config::default())
}

fn with_config(config: Config) -> Server {
    Server(ApiServer::new(config, Store::memory().unwrap()))
}

/// A response that has been read.
struct Answer {
    code: u16,
    headers: http::HeaderMap,
    body: Value,
}

impl Answer {
    #[track_caller]
    fn ok(self) -> Value {
        assert!((200..300).contains(&self.code), "{} {}", self.code, self.body);
        self.body
    }

    /// Code and message of a refusal.
    #[track_caller]
    fn refused(self) -> (u16, String) {
        assert_eq!(self.body["kind"], "Status", "{}", self.body);
        assert_eq!(self.body["status"], "Failure", "{}", self.body);
        assert_eq!(self.body["code"], self.code);
        (self.code, self.body["message"].as_str().unwrap().to_owned())
    }

    fn warnings(&self) -> Vec<&str> {
        self.headers
            .get_all("warning")
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }
}

fn body(bytes: impl Into<bytes::Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

impl Server {
    async fn send(&self, request: http::request::Builder, bytes: impl Into<bytes::Bytes>) -> Response<Body> {
        let user = UserInfo::new("admin", &["system:masters"]);
        self.0.handle(user, request.body(body(bytes)).unwrap()).await
    }

    async fn read(&self, request: http::request::Builder, bytes: impl Into<bytes::Bytes>) -> Answer {
        let (parts, body) = self.send(request, bytes).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }

    async fn call(&self, method: Method, path: &str, value: Value) -> Answer {
        let text = if value.is_null() {
            String::new()
        } else {
            value.to_string()
        };
        self.read(Request::builder().method(method).uri(path), text).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Value::Null).await
    }

    async fn post(&self, path: &str, value: Value) -> Answer {
        self.call(Method::POST, path, value).await
    }

    async fn put(&self, path: &str, value: Value) -> Answer {
        self.call(Method::PUT, path, value).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, Value::Null).await
    }

    async fn patch(&self, path: &str, kind: &str, value: Value) -> Answer {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(path)
            .header("content-type", format!("application/{kind}+json"));
        self.read(request, value.to_string()).await
    }

    /// The table of a path as its cells.
    async fn table(&self, path: &str) -> Vec<Vec<Value>> {
        let request = Request::builder()
            .uri(path)
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
        let table = self.read(request, "").await.ok();
        assert_eq!(table["kind"], "Table");
        let rows = table["rows"].as_array().unwrap();
        rows.iter()
            .map(|row| row["cells"].as_array().unwrap().clone())
            .collect()
    }
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "k": "v" } })
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } },
        "spec": { "containers": [{ "name": "c", "image": "i:1" }] }
    })
}

fn replica_set(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": name },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [{ "name": "c", "image": "i:1" }] } }
        }
    })
}

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}
