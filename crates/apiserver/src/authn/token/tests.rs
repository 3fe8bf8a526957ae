use super::*;
use crate::authn::bootstrap_token::BootstrapTokens;
use crate::fake_reader::FakeReader;
use crate::request::Attributes;
use crate::serviceaccounts::TokenRequests;
use base64::Engine;
use serde_json::{Value, json};

const ISSUER: &str = "https://kubernetes.default.svc";

struct Cluster {
    reader: FakeReader,
    requests: TokenRequests,
    tokens: BearerTokens,
    now: Timestamp,
}

fn cluster() -> Cluster {
    let reader = FakeReader::default();
    let put = |resource: &str, object: Value| reader.put("", resource, object);
    put(
        "serviceaccounts",
        json!({"metadata": {"name": "sa", "namespace": "d", "uid": "sa-uid"}}),
    );
    put("nodes", json!({"metadata": {"name": "n", "uid": "n-uid"}}));
    put(
        "pods",
        json!({"metadata": {"name": "p", "namespace": "d", "uid": "p-uid"},
        "spec": {"serviceAccountName": "sa", "nodeName": "n"}}),
    );
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let keys = Arc::new(Keys::from_pem(pem.as_bytes(), &[]).unwrap());
    let audiences = vec![ISSUER.to_owned()];
    Cluster {
        requests: TokenRequests::new(keys.clone(), ISSUER, audiences.clone()),
        tokens: BearerTokens::new(vec![
            Box::new(StaticTokens::new(vec![(
                "join".to_owned(),
                UserInfo::new("joiner", &["j"]),
            )])),
            Box::new(BootstrapTokens),
            Box::new(ServiceAccountTokens::new(
                keys,
                vec![ISSUER.to_owned()],
                audiences,
            )),
        ]),
        reader,
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
}

impl Cluster {
    fn token(&self, spec: Value) -> String {
        let attributes = Attributes {
            namespace: "d".to_owned(),
            name: "sa".to_owned(),
            ..Attributes::default()
        };
        let request = json!({"metadata": {}, "spec": spec});
        let issued = self
            .requests
            .issue(&attributes, request, &self.reader, self.now)
            .unwrap();
        issued["status"]["token"].as_str().unwrap().to_owned()
    }

    fn verify_after(
        &self,
        token: &str,
        audiences: &[&str],
        seconds: i64,
    ) -> Result<Option<Verified>, String> {
        let audiences: Vec<String> = audiences.iter().map(|a| (*a).to_owned()).collect();
        let now = self.now + jiff::SignedDuration::from_secs(seconds);
        self.tokens.verify(token, &audiences, &self.reader, now)
    }
}

#[test]
fn bound_token_of_a_pod() {
    let cluster = cluster();
    let bound =
        json!({"expirationSeconds": 600, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}});
    let token = cluster.token(bound);
    let user = cluster.verify_after(&token, &[], 10).unwrap().unwrap().user;
    assert_eq!(
        (user.name.as_str(), user.uid.as_str()),
        ("system:serviceaccount:d:sa", "sa-uid")
    );
    assert_eq!(
        user.groups,
        [
            "system:serviceaccounts",
            "system:serviceaccounts:d",
            "system:authenticated"
        ]
    );
    let extra = |key: &str| user.extra[&format!("authentication.kubernetes.io/{key}")][0].clone();
    assert_eq!(
        [
            extra("pod-name"),
            extra("pod-uid"),
            extra("node-name"),
            extra("node-uid")
        ],
        ["p", "p-uid", "n", "n-uid"]
    );
    assert!(extra("credential-id").starts_with("JTI="));

    assert_eq!(
        cluster.verify_after(&token, &[], 700).unwrap_err(),
        "service account token has expired"
    );
    cluster.reader.put(
        "",
        "pods",
        json!({"metadata": {"name": "p", "namespace": "d", "uid": "another"}}),
    );
    assert_eq!(
        cluster.verify_after(&token, &[], 10).unwrap_err(),
        "service account token has been invalidated"
    );
    cluster.reader.remove("", "serviceaccounts", "d", "sa");
    assert_eq!(
        cluster.verify_after(&token, &[], 10).unwrap_err(),
        r#"serviceaccount "sa" not found"#
    );
}

#[test]
fn tokens_for_others_are_not_for_us() {
    let cluster = cluster();
    let token = cluster.token(json!({"audiences": ["vault"]}));
    assert!(
        cluster
            .verify_after(&token, &[], 0)
            .unwrap_err()
            .contains("invalid for the target audiences")
    );
    let verified = cluster.verify_after(&token, &["vault", "x"], 0).unwrap().unwrap();
    assert_eq!(verified.audiences, ["vault"]);
}

#[test]
fn static_and_bootstrap_tokens() {
    let cluster = cluster();
    let join = cluster.verify_after("join", &[], 0).unwrap().unwrap();
    assert_eq!(join.user, UserInfo::new("joiner", &["j", "system:authenticated"]));
    assert_eq!(cluster.verify_after("joi", &[], 0), Ok(None));

    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    cluster.reader.put("", "secrets", json!({
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "data": {"token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
            "usage-bootstrap-authentication": encode("true"), "expiration": encode("2026-01-01T00:01:00Z"),
            "auth-extra-groups": encode("system:bootstrappers:x,root")},
    }));
    let user = cluster
        .verify_after("abcdef.0123456789abcdef", &[], 0)
        .unwrap()
        .unwrap()
        .user;
    assert_eq!(user.name, "system:bootstrap:abcdef");
    assert_eq!(
        user.groups,
        [
            "system:bootstrappers",
            "system:bootstrappers:x",
            "system:authenticated"
        ]
    );
    assert_eq!(cluster.verify_after("abcdef.0123456789abcdeX", &[], 0), Ok(None));
    assert_eq!(cluster.verify_after("abcdef.0123456789abcde0", &[], 0), Ok(None));
    assert_eq!(
        cluster.verify_after("abcdef.0123456789abcdef", &[], 120),
        Ok(None)
    );
}

#[test]
fn headers() {
    let cluster = cluster();
    let authenticate = |name: http::HeaderName, value: &str| {
        let headers = HeaderMap::from_iter([(name, value.parse().unwrap())]);
        cluster.tokens.authenticate(&headers, &[], &cluster.reader)
    };
    let known = |result: Result<Option<UserInfo>, Status>| result.unwrap().map(|u| u.name);
    assert_eq!(
        known(authenticate(header::AUTHORIZATION, "Bearer join")),
        Some("joiner".to_owned())
    );
    assert_eq!(
        known(authenticate(header::AUTHORIZATION, "bearer  join")),
        Some("joiner".to_owned())
    );
    assert_eq!(known(authenticate(header::AUTHORIZATION, "Basic am9pbg==")), None);
    assert_eq!(known(authenticate(header::ACCEPT, "x")), None);
    assert_eq!(
        authenticate(header::AUTHORIZATION, "Bearer nope")
            .unwrap_err()
            .code,
        401
    );
    let protocols = "base64url.bearer.authorization.k8s.io.am9pbg, v5.channel.k8s.io";
    assert_eq!(
        known(authenticate(header::SEC_WEBSOCKET_PROTOCOL, protocols)),
        Some("joiner".to_owned())
    );
}
