//! POST, PUT and PATCH.

use super::*;

#[tokio::test]
async fn a_new_object_gets_its_identity() {
    let server = server();
    let mut object = config_map("a");
    object["metadata"]["uid"] = "mine".into();
    object["metadata"]["selfLink"] = "/x".into();
    object["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    let answer = server.post(CONFIG_MAPS, object).await;
    assert_eq!(answer.code, 201);
    assert!(answer.headers.contains_key("audit-id"));
    let made = answer.ok();
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["resourceVersion"], "2");
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(
        made["metadata"]["creationTimestamp"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    assert!(made["metadata"].get("selfLink").is_none());
    assert!(made["metadata"].get("deletionTimestamp").is_none());
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.ok(), made);

    let taken = server.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(
        taken.refused(),
        (409, "configmaps \"a\" already exists".to_owned())
    );
}

#[tokio::test]
async fn names_are_generated() {
    let server = server();
    let object = json!({ "metadata": { "generateName": "a-" } });
    let one = server.post(CONFIG_MAPS, object.clone()).await.ok();
    let two = server.post(CONFIG_MAPS, object).await.ok();
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name(&one).starts_with("a-") && name(&one).len() == 7);
    assert_ne!(name(&one), name(&two));
}

#[tokio::test]
async fn bodies_must_fit_their_path() {
    let server = server();
    let mut elsewhere = config_map("a");
    elsewhere["metadata"]["namespace"] = "other".into();
    assert_eq!(
        server.post(CONFIG_MAPS, elsewhere).await.refused(),
        (
            400,
            "the namespace of the provided object does not match the namespace sent on the request".into()
        )
    );
    let wrong = server
        .post(CONFIG_MAPS, json!({ "apiVersion": "v1", "kind": "Secret" }))
        .await
        .refused();
    assert_eq!(wrong.0, 400);
    assert!(
        wrong
            .1
            .starts_with("Secret in version \"v1\" cannot be handled as a ConfigMap"),
        "{}",
        wrong.1
    );
    let version = server
        .post(CONFIG_MAPS, json!({ "apiVersion": "v2", "kind": "ConfigMap" }))
        .await
        .refused();
    assert_eq!(
        version.1,
        "the API version in the data (v2) does not match the expected API version (v1)"
    );
    let mut old = config_map("a");
    old["metadata"]["resourceVersion"] = "5".into();
    assert_eq!(
        server.post(CONFIG_MAPS, old).await.refused(),
        (
            500,
            "resourceVersion should not be set on objects to be created".into()
        )
    );
    let text = server
        .read(Request::builder().method("POST").uri(CONFIG_MAPS), "{")
        .await
        .refused();
    assert_eq!(text.0, 400);
    let request = Request::builder()
        .method("POST")
        .uri(CONFIG_MAPS)
        .header("content-type", "text/html");
    assert_eq!(server.read(request, "x").await.code, 415);
    let large = vec![b' '; crate::http::body::LIMIT + 1];
    assert_eq!(
        server
            .read(Request::builder().method("POST").uri(CONFIG_MAPS), large)
            .await
            .refused()
            .0,
        413
    );
}

#[tokio::test]
async fn unknown_fields_as_the_client_wishes() {
    let server = server();
    let mut object = config_map("a");
    object["dat"] = json!({});
    let strict = server
        .post(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), object.clone())
        .await
        .refused();
    assert_eq!(strict.0, 400);
    assert_eq!(
        strict.1,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"dat\""
    );
    let ignored = server
        .post(
            &format!("{CONFIG_MAPS}?fieldValidation=Ignore&dryRun=All"),
            object.clone(),
        )
        .await;
    assert_eq!(ignored.warnings(), Vec::<&str>::new());
    let warned = server.post(CONFIG_MAPS, object).await;
    assert_eq!(warned.warnings(), ["299 - \"unknown field \\\"dat\\\"\""]);
    assert!(warned.ok().get("dat").is_none());
    let bad = server
        .post(&format!("{CONFIG_MAPS}?fieldValidation=Maybe"), config_map("b"))
        .await
        .refused();
    assert_eq!(bad.0, 422);
}

#[tokio::test]
async fn yaml_goes_in_and_out() {
    let server = server();
    let request = Request::builder()
        .method("POST")
        .uri(CONFIG_MAPS)
        .header("content-type", "application/yaml")
        .header("accept", "application/yaml");
    let answer = server
        .read(request, "metadata:\n  name: a\ndata:\n  on: \"yes\"\n")
        .await;
    assert_eq!(answer.headers["content-type"], "application/yaml");
    assert!(answer.body.as_str().unwrap().contains("kind: ConfigMap"));
    assert_eq!(
        server.get(&format!("{CONFIG_MAPS}/a")).await.ok()["data"],
        json!({ "on": "yes" })
    );
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let server = server();
    let made = server
        .post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("a"))
        .await;
    assert_eq!(made.code, 201);
    assert!(made.ok()["metadata"].get("resourceVersion").is_none());
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    server.post(CONFIG_MAPS, config_map("a")).await.ok();
    let mut changed = config_map("a");
    changed["data"]["k"] = "w".into();
    assert_eq!(
        server
            .put(&format!("{CONFIG_MAPS}/a?dryRun=All"), changed)
            .await
            .ok()["data"]["k"],
        "w"
    );
    assert_eq!(
        server.delete(&format!("{CONFIG_MAPS}/a?dryRun=All")).await.code,
        200
    );
    assert_eq!(
        server.get(&format!("{CONFIG_MAPS}/a")).await.ok()["data"]["k"],
        "v"
    );
    assert_eq!(
        server
            .post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("a"))
            .await
            .code,
        409
    );
    assert_eq!(
        server
            .post(&format!("{CONFIG_MAPS}?dryRun=Some"), config_map("b"))
            .await
            .code,
        422
    );
}

#[tokio::test]
async fn put_replaces_what_it_has_seen() {
    let server = server();
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(
        server.put(&path, config_map("a")).await.refused(),
        (404, "configmaps \"a\" not found".into())
    );
    let one = server.post(CONFIG_MAPS, config_map("a")).await.ok();
    let mut two = one.clone();
    two["data"] = json!({ "k": "w" });
    two["metadata"]["creationTimestamp"] = "2000-01-01T00:00:00Z".into();
    let two = server.put(&path, two).await.ok();
    assert_eq!(
        two["metadata"]["creationTimestamp"],
        one["metadata"]["creationTimestamp"]
    );
    assert_ne!(
        two["metadata"]["resourceVersion"],
        one["metadata"]["resourceVersion"]
    );

    let lost = server.put(&path, one.clone()).await.refused();
    assert_eq!(
        lost,
        (
            409,
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
             changes to the latest version and try again"
                .into()
        )
    );
    let same = server.put(&path, two.clone()).await.ok();
    assert_eq!(same, two, "a write that changes nothing is no write");

    let mut other = two.clone();
    other["metadata"]["uid"] = "other".into();
    assert_eq!(server.put(&path, other).await.refused().0, 409);
    let mut renamed = two.clone();
    renamed["metadata"]["name"] = "b".into();
    assert_eq!(
        server.put(&path, renamed).await.refused(),
        (
            400,
            "the name of the object (b) does not match the name on the URL (a)".into()
        )
    );
    let unconditional = server.put(&path, config_map("a")).await.ok();
    assert_eq!(unconditional["data"]["k"], "v");
    assert_eq!(unconditional["metadata"]["uid"], one["metadata"]["uid"]);
}

#[tokio::test]
async fn patches_of_three_kinds() {
    let server = server();
    server.post(REPLICA_SETS, replica_set("a")).await.ok();
    let path = format!("{REPLICA_SETS}/a");
    let merged = server
        .patch(&path, "merge-patch", json!({ "spec": { "replicas": 3 } }))
        .await
        .ok();
    assert_eq!(merged["metadata"]["generation"], 2);
    let json = server
        .patch(
            &path,
            "json-patch",
            json!([{ "op": "replace", "path": "/spec/replicas", "value": 4 }]),
        )
        .await
        .ok();
    assert_eq!(json["spec"]["replicas"], 4);
    let labelled = server
        .patch(
            &path,
            "merge-patch",
            json!({ "metadata": { "labels": { "x": "y" } } }),
        )
        .await
        .ok();
    assert_eq!(labelled["metadata"]["generation"], 3, "metadata does not count");
    let strategic =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "d", "image": "j" }] } } } });
    let containers = server.patch(&path, "strategic-merge-patch", strategic).await.ok();
    let containers = containers["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(containers.len(), 2, "containers merge by name");

    let stale = json!({ "metadata": { "resourceVersion": "1" }, "spec": { "replicas": 9 } });
    assert_eq!(server.patch(&path, "merge-patch", stale).await.code, 409);
    let test = json!([{ "op": "test", "path": "/spec/replicas", "value": 7 }]);
    assert_eq!(server.patch(&path, "json-patch", test).await.refused().0, 422);
    assert_eq!(server.patch(&path, "wish", json!({})).await.code, 415);
    assert_eq!(
        server
            .patch(&format!("{REPLICA_SETS}/b"), "merge-patch", json!({}))
            .await
            .code,
        404
    );
    let invalid = json!({ "spec": { "replicas": -1 } });
    assert_eq!(server.patch(&path, "merge-patch", invalid).await.refused().0, 422);
}

#[tokio::test]
async fn concurrent_patches_all_count() {
    let server = std::sync::Arc::new(server());
    server.post(CONFIG_MAPS, config_map("a")).await.ok();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..10 {
        let server = server.clone();
        tasks.spawn(async move {
            let patch = json!({ "data": { n.to_string(): "x" } });
            server
                .patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", patch)
                .await
                .ok();
        });
    }
    tasks.join_all().await;
    let object = server.get(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert_eq!(object["data"].as_object().unwrap().len(), 11);
}

#[tokio::test]
async fn invalid_objects_are_refused_with_upstreams_text() {
    let server = server();
    let mut bad = replica_set("a");
    bad["spec"]["template"]["metadata"]["labels"] = json!({ "app": "b" });
    let (code, message) = server.post(REPLICA_SETS, bad).await.refused();
    assert_eq!(code, 422);
    assert!(
        message.starts_with("ReplicaSet.apps \"a\" is invalid: spec.template.metadata.labels: Invalid value"),
        "{message}"
    );
    assert_eq!(server.get(REPLICA_SETS).await.ok()["items"], json!([]));
}

/// kubectl's `create configmap` and other Go clients send protobuf.
#[tokio::test]
async fn protobuf_is_read() {
    let server = server();
    let field = |number: u8, bytes: &[u8]| {
        [
            vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()],
            bytes.to_vec(),
        ]
        .concat()
    };
    let meta = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
    let object = [
        field(1, &field(1, b"a")),
        field(2, &[field(1, b"k"), field(2, b"v")].concat()),
    ]
    .concat();
    let bytes = [b"k8s\0".to_vec(), field(1, &meta), field(2, &object)].concat();
    let request = Request::builder()
        .method("POST")
        .uri(CONFIG_MAPS)
        .header("content-type", "application/vnd.kubernetes.protobuf")
        .header("accept", "application/vnd.kubernetes.protobuf,application/json");
    let made = server.read(request, bytes).await.ok();
    assert_eq!(made["data"], json!({ "k": "v" }));
}

#[tokio::test]
async fn managers_own_what_they_write() {
    let server = server();
    let request = |method: &str, path: &str, kind: &str| {
        Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .header("user-agent", "kubectl/v1 (x)")
    };
    let made = server
        .read(
            request("POST", CONFIG_MAPS, "application/json"),
            config_map("a").to_string(),
        )
        .await
        .ok();
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"]),
        (&json!("kubectl"), &json!("Update"))
    );
    assert_eq!(entry["fieldsV1"]["f:data"]["f:k"], json!({}));

    let path = format!("{CONFIG_MAPS}/a");
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: other}\n";
    let apply = |query: &str| {
        request(
            "PATCH",
            &format!("{path}?{query}"),
            "application/apply-patch+yaml",
        )
    };
    let (code, message) = server.read(apply("fieldManager=me"), config).await.refused();
    assert_eq!(code, 409);
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"kubectl\" using v1: .data.k"
    );
    let forced = server
        .read(apply("fieldManager=me&force=true"), config)
        .await
        .ok();
    assert_eq!(forced["data"]["k"], "other");
    let managers: Vec<&str> = forced["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["manager"].as_str().unwrap())
        .collect();
    assert!(managers.contains(&"me"), "{managers:?}");
    let again = server
        .read(apply("fieldManager=me&force=true"), config)
        .await
        .ok();
    assert_eq!(again, forced, "the same once more is no write");
    let nobody = server.read(apply("force=true"), config).await.refused();
    assert!(
        nobody
            .1
            .contains("fieldManager: Required value: is required for apply patch"),
        "{}",
        nobody.1
    );

    let new = request(
        "PATCH",
        &format!("{CONFIG_MAPS}/b?fieldManager=me"),
        "application/apply-patch+yaml",
    );
    let made = server.read(new, config.replace("name: a", "name: b")).await;
    assert_eq!(made.code, 201);
    assert_eq!(made.ok()["metadata"]["uid"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn data_nested_too_deeply_is_refused() {
    let server = server();
    let revision = |levels: usize| {
        let data = format!("{}1{}", "[".repeat(levels - 2), "]".repeat(levels - 2));
        format!(
            r#"{{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{{"name":"deep"}},"revision":1,"data":{{"x":{data}}}}}"#
        )
    };
    let post = |media: &str| {
        Request::builder()
            .method(Method::POST)
            .uri("/apis/apps/v1/namespaces/default/controllerrevisions")
            .header("content-type", media.to_owned())
    };
    for media in ["application/json", "application/yaml"] {
        let (code, message) = server.read(post(media), revision(128)).await.refused();
        assert_eq!(code, 400);
        assert!(message.contains("nest"), "{message}");
    }
    server.read(post("application/json"), revision(127)).await.ok();
    let path = "/apis/apps/v1/namespaces/default/controllerrevisions/deep";
    let patch = format!(r#"{{"data":{{"x":{}1{}}}}}"#, "[".repeat(126), "]".repeat(126));
    for kind in [
        "merge-patch+json",
        "strategic-merge-patch+json",
        "apply-patch+yaml",
    ] {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!("{path}?fieldManager=m"))
            .header("content-type", format!("application/{kind}"));
        let (code, message) = server.read(request, patch.clone()).await.refused();
        assert_eq!(code, 400);
        assert!(message.contains("nest"), "{message}");
    }
    assert_eq!(server.get(path).await.ok()["revision"], 1);
}
