use super::*;
use crate::fake_reader::FakeReader;

fn issue(name: &str, request: Value) -> Result<(Value, Claims), Status> {
    let reader = FakeReader::default();
    let put = |resource: &str, object: Value| reader.put("", resource, object);
    put(
        "serviceaccounts",
        json!({"metadata": {"name": "sa", "namespace": "d", "uid": "u"}}),
    );
    put(
        "pods",
        json!({"metadata": {"name": "p", "namespace": "d", "uid": "p-uid"}, "spec": {"serviceAccountName": "sa"}}),
    );
    put(
        "pods",
        json!({"metadata": {"name": "q", "namespace": "d"}, "spec": {"serviceAccountName": "other"}}),
    );
    put(
        "secrets",
        json!({"metadata": {"name": "s", "namespace": "d", "uid": "s-uid"}}),
    );
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let keys = Arc::new(Keys::from_pem(pem.as_bytes(), &[]).unwrap());
    let requests = TokenRequests::new(keys.clone(), "https://i", vec!["us".to_owned()]);
    let attributes = Attributes {
        namespace: "d".to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    let now = "2026-01-01T00:00:00.5Z".parse().unwrap();
    let issued = requests.issue(&attributes, request, &reader, now)?;
    let claims = keys.verify(issued["status"]["token"].as_str().unwrap()).unwrap();
    Ok((issued, claims))
}

fn bound(kind: &str, name: &str) -> Value {
    json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}}})
}

#[test]
fn defaults() {
    let (issued, claims) = issue("sa", json!({})).unwrap();
    assert_eq!(issued["metadata"]["name"], "sa");
    assert_eq!(
        issued["spec"],
        json!({"audiences": ["us"], "expirationSeconds": 3600})
    );
    assert_eq!(issued["status"]["expirationTimestamp"], "2026-01-01T01:00:00Z");
    assert_eq!(
        (claims.iss.as_str(), claims.sub.as_str()),
        ("https://i", "system:serviceaccount:d:sa")
    );
    assert_eq!(claims.exp - claims.iat, 3600);
    assert_eq!(claims.kubernetes.warnafter, None);
}

#[test]
fn bound_objects() {
    let (_, pod) = issue("sa", bound("Pod", "p")).unwrap();
    assert_eq!(pod.kubernetes.pod.unwrap().uid, "p-uid");
    let (_, secret) = issue("sa", bound("Secret", "s")).unwrap();
    assert_eq!(secret.kubernetes.secret.unwrap().uid, "s-uid");
    assert_eq!(issue("sa", bound("Pod", "gone")).unwrap_err().code, 404);
    assert_eq!(
        issue("sa", bound("Pod", "q")).unwrap_err().message,
        r#"cannot bind token for serviceaccount "sa" to pod running with different serviceaccount name."#
    );
    assert_eq!(issue("sa", bound("ConfigMap", "c")).unwrap_err().code, 400);
    let mut other = bound("Pod", "p");
    other["spec"]["boundObjectRef"]["uid"] = "wrong".into();
    assert_eq!(issue("sa", other).unwrap_err().code, 409);
}

#[test]
fn injected_tokens_live_longer_than_they_say() {
    let mut injected = bound("Pod", "p");
    injected["spec"]["expirationSeconds"] = 3607.into();
    let (issued, claims) = issue("sa", injected).unwrap();
    assert_eq!(issued["status"]["expirationTimestamp"], "2026-01-01T01:00:07Z");
    assert_eq!(claims.exp - claims.iat, 365 * 24 * 3600);
    assert_eq!(claims.kubernetes.warnafter, Some(claims.iat + 3607));
}

#[test]
fn refusals() {
    assert_eq!(
        issue("gone", json!({})).unwrap_err().message,
        r#"serviceaccounts "gone" not found"#
    );
    for (seconds, text) in [
        (599, "less than 10 minutes"),
        (1_i64 << 33, "larger than 2^32 seconds"),
    ] {
        let refused = issue("sa", json!({"spec": {"expirationSeconds": seconds}})).unwrap_err();
        assert_eq!(refused.code, 422);
        assert!(refused.message.contains(text), "{}", refused.message);
    }
    assert_eq!(
        issue("sa", json!({"metadata": {"name": "x"}})).unwrap_err().code,
        422
    );
    assert_eq!(
        issue("sa", json!({"metadata": {"uid": "x"}})).unwrap_err().code,
        409
    );
}
