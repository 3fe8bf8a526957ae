//! Authorisation, admission and connectors.

use super::*;
use crate::serviceaccounts::{Keys, openid};
use crate::{Admission, AdmissionRequest, Attributes, Authorizer, Connection, Connector, Decision, Reader};
use coracle_meta::{GroupResource, Status};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;

/// Writes down what it is told, and refuses what has the label `refuse`.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn note(&self, text: String) {
        self.0.lock().push(text);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Admission for Recorder {
    fn admit(&self, request: &mut AdmissionRequest, _: &dyn Reader) -> Result<(), Status> {
        self.note(format!("admit {:?}", request.operation));
        if let Some(object) = &mut request.object {
            object["metadata"]["annotations"]["seen"] = "yes".into();
        }
        request.warnings.push("look out".into());
        Ok(())
    }

    fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let pods = GroupResource::new("", "configmaps");
        self.note(format!("validate with {}", reader.list(&pods, None).len()));
        match &request.object {
            Some(object) if object["metadata"]["labels"]["refuse"] == "yes" => {
                Err(Status::forbidden(&request.attributes.group_resource(), "a", "no"))
            }
            _ => Ok(()),
        }
    }

    fn finish(&self, _: &AdmissionRequest, committed: bool) {
        self.note(format!("finish {committed}"));
    }

    fn removed(&self, resource: &GroupResource, old: &Value) {
        self.note(format!("removed {resource} {}", old["metadata"]["name"]));
    }
}

#[tokio::test]
async fn admission_sees_every_end() {
    let recorder = Arc::new(Recorder::default());
    let server = with_config(Config {
        admission: vec![recorder.clone()],
        ..Config::default()
    });
    let made = server.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(made.warnings(), ["299 - \"look out\""]);
    assert_eq!(made.ok()["metadata"]["annotations"]["seen"], "yes");
    assert_eq!(
        recorder.take(),
        ["admit Create", "validate with 0", "finish true"]
    );
    server.post(CONFIG_MAPS, config_map("a")).await.refused();
    assert_eq!(
        recorder.take(),
        ["admit Create", "validate with 1", "finish false"]
    );
    server
        .post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("b"))
        .await
        .ok();
    assert_eq!(
        recorder.take(),
        ["admit Create", "validate with 1", "finish false"]
    );
    let refuse = json!({ "metadata": { "labels": { "refuse": "yes" } } });
    assert_eq!(
        server
            .patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", refuse)
            .await
            .code,
        403
    );
    assert_eq!(
        recorder.take(),
        ["admit Update", "validate with 1", "finish false"]
    );
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    let end = [
        "admit Delete",
        "validate with 1",
        "removed configmaps \"a\"",
        "finish true",
    ];
    assert_eq!(recorder.take(), end);
}

/// Lets everybody read.
struct ReadOnly;

impl Authorizer for ReadOnly {
    fn authorize(&self, attributes: &Attributes, _: &dyn Reader) -> Decision {
        match attributes.verb.as_str() {
            "get" | "list" | "watch" => Decision::Allow,
            _ => Decision::NoOpinion("read only".into()),
        }
    }
}

#[tokio::test]
async fn the_authoriser_is_asked() {
    let server = with_config(Config {
        authorizers: vec![Arc::new(ReadOnly)],
        ..Config::default()
    });
    let ask = async |method: &str| {
        let request = Request::builder()
            .method(method)
            .uri(PODS)
            .body(body(pod("a").to_string()))
            .unwrap();
        server.0.handle(UserInfo::new("jane", &[]), request).await
    };
    assert_eq!(ask("GET").await.status(), 200);
    let response = ask("POST").await;
    assert_eq!(response.status(), 403);
    let status: Value =
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(
        status["message"],
        "pods is forbidden: User \"jane\" cannot create resource \"pods\" in API group \"\" in the namespace \
         \"default\": read only"
    );
}

struct Echo;

impl Connector for Echo {
    fn connect(
        &self,
        attributes: Attributes,
        request: Request<Body>,
        _: Arc<dyn Reader>,
    ) -> BoxFuture<'static, Result<Response<Body>, Status>> {
        Box::pin(async move {
            let bytes = request
                .into_body()
                .collect()
                .await
                .map_err(Status::internal)?
                .to_bytes();
            Ok(Response::new(body(format!(
                "\"{} {} {}\"",
                attributes.name,
                attributes.subpath,
                bytes.len()
            ))))
        })
    }
}

#[tokio::test]
async fn connectors_take_their_subresource() {
    let server = with_config(Config {
        connections: vec![Connection::new("", "nodes", "proxy", Arc::new(Echo))],
        ..Config::default()
    });
    let answer = server.post("/api/v1/nodes/n/proxy/a/b", json!([1, 2])).await;
    assert_eq!(answer.body, "n a/b 5");
    assert_eq!(server.get(&format!("{PODS}/a/log")).await.refused().0, 404);
}

#[tokio::test]
async fn others_can_verify_tokens() {
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let keys = Keys::from_pem(pem.as_bytes(), &[]).unwrap();
    let external = "192.0.2.1:6443".parse().unwrap();
    let server = with_config(Config {
        documents: openid::documents(&keys, "https://issuer.example", external),
        ..Config::default()
    });
    let answer = server.get("/.well-known/openid-configuration").await;
    assert_eq!(answer.headers["cache-control"], "public, max-age=3600");
    let configuration = answer.ok();
    assert_eq!(configuration["issuer"], "https://issuer.example");
    assert_eq!(configuration["jwks_uri"], "https://192.0.2.1:6443/openid/v1/jwks");
    assert_eq!(
        configuration["id_token_signing_alg_values_supported"],
        json!(["ES256"])
    );
    let answer = server.get("/openid/v1/jwks").await;
    assert_eq!(answer.headers["content-type"], "application/jwk-set+json");
    assert_eq!(answer.ok()["keys"][0]["crv"], "P-256");
    let paths = server.get("/").await.ok();
    assert!(
        paths["paths"]
            .as_array()
            .unwrap()
            .contains(&json!("/openid/v1/jwks"))
    );
}
