//! DELETE: grace, finalizers, propagation, namespaces.

use super::*;

#[tokio::test]
async fn most_kinds_go_at_once() {
    let server = server();
    let made = server.post(CONFIG_MAPS, config_map("a")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let wrong = json!({ "preconditions": { "uid": "other" } });
    let (code, message) = server.call(Method::DELETE, &path, wrong).await.refused();
    assert_eq!(code, 409);
    assert!(
        message.contains("the UID in the precondition (other) does not match the UID in record"),
        "{message}"
    );
    let status = server.delete(&path).await.ok();
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["status"], "Success");
    assert_eq!(status["details"]["uid"], made["metadata"]["uid"]);
    assert_eq!(
        server.delete(&path).await.refused(),
        (404, "configmaps \"a\" not found".into())
    );
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = server();
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(CONFIG_MAPS, object).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let marked = server.delete(&path).await.ok();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(
        server.delete(&path).await.ok()["metadata"]["resourceVersion"],
        marked["metadata"]["resourceVersion"]
    );
    assert_eq!(
        server.post(CONFIG_MAPS, config_map("a")).await.refused(),
        (
            409,
            "object is being deleted: configmaps \"a\" already exists".into()
        )
    );
    let last = server
        .patch(
            &path,
            "merge-patch",
            json!({ "metadata": { "finalizers": null } }),
        )
        .await;
    assert_eq!(last.code, 200);
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn propagation_is_a_finalizer() {
    let server = server();
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        server.post(REPLICA_SETS, replica_set("a")).await.ok();
        let path = format!("{REPLICA_SETS}/a");
        let marked = server
            .call(Method::DELETE, &path, json!({ "propagationPolicy": policy }))
            .await
            .ok();
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        assert_eq!(marked["metadata"]["generation"], 2);
        server
            .patch(&path, "merge-patch", json!({ "metadata": { "finalizers": [] } }))
            .await
            .ok();
        assert_eq!(server.get(&path).await.code, 404);
    }
    server.post(REPLICA_SETS, replica_set("a")).await.ok();
    server
        .call(
            Method::DELETE,
            &format!("{REPLICA_SETS}/a"),
            json!({ "propagationPolicy": "Background" }),
        )
        .await
        .ok();
    assert_eq!(server.get(&format!("{REPLICA_SETS}/a")).await.code, 404);
    let bad = server
        .call(
            Method::DELETE,
            &format!("{REPLICA_SETS}/a"),
            json!({ "propagationPolicy": "Perhaps" }),
        )
        .await;
    assert_eq!(bad.refused().0, 422);
}

#[tokio::test]
async fn pods_on_a_node_are_given_time() {
    let server = server();
    let path = format!("{PODS}/a");
    server.post(PODS, pod("a")).await.ok();
    server.delete(&path).await.ok();
    assert_eq!(server.get(&path).await.code, 404, "nobody runs it");

    server.post(PODS, pod("a")).await.ok();
    let binding = json!({ "metadata": { "name": "a" }, "target": { "kind": "Node", "name": "n" } });
    server.post(&format!("{path}/binding"), binding).await.ok();
    let marked = server.delete(&path).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let longer = server
        .call(Method::DELETE, &path, json!({ "gracePeriodSeconds": 60 }))
        .await
        .ok();
    assert_eq!(
        longer["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"],
        "only shorter"
    );
    let shorter = server
        .call(Method::DELETE, &path, json!({ "gracePeriodSeconds": 5 }))
        .await
        .ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let uid = &shorter["metadata"]["uid"];
    let last = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": uid } });
    server.call(Method::DELETE, &path, last).await.ok();
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn namespaces_go_when_they_are_empty() {
    let server = server();
    let path = "/api/v1/namespaces/a";
    let made = server
        .post("/api/v1/namespaces", json!({ "metadata": { "name": "a" } }))
        .await
        .ok();
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["status"]["phase"], "Active");
    let marked = server.delete(path).await.ok();
    assert_eq!(marked["status"]["phase"], "Terminating");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(server.delete(path).await.code, 200);
    assert_eq!(server.get(path).await.code, 200);
    let mut finalized = marked.clone();
    finalized["spec"]["finalizers"] = json!([]);
    server.put(&format!("{path}/finalize"), finalized).await.ok();
    assert_eq!(server.get(path).await.code, 404);
}

#[tokio::test]
async fn a_cascade_asked_for_in_the_old_way_is_accepted() {
    let server = server();
    for (options, code) in [
        (json!({ "orphanDependents": false }), 202),
        (json!({ "propagationPolicy": "Foreground" }), 200),
    ] {
        let mut object = config_map("kept");
        object["metadata"]["finalizers"] = json!(["example.com/keep"]);
        server.post(CONFIG_MAPS, object).await.ok();
        let path = format!("{CONFIG_MAPS}/kept");
        assert_eq!(server.call(Method::DELETE, &path, options).await.code, code);
        server
            .patch(
                &path,
                "merge-patch",
                json!({ "metadata": { "finalizers": null } }),
            )
            .await
            .ok();
        assert_eq!(server.get(&path).await.code, 404);
    }
}
