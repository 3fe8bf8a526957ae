//! status, scale, binding, eviction.

use super::*;

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = server();
    let mut object = replica_set("a");
    object["status"] = json!({ "replicas": 7 });
    let made = server.post(REPLICA_SETS, object).await.ok();
    assert_ne!(made["status"]["replicas"], 7);
    let mut both = made.clone();
    both["spec"]["replicas"] = 5.into();
    both["status"] = json!({ "replicas": 1, "observedGeneration": 1 });
    let status = server.put(&format!("{REPLICA_SETS}/a/status"), both).await.ok();
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(status["metadata"]["generation"], 1);
    let patch = json!({ "spec": { "replicas": 9 }, "status": { "replicas": 8 } });
    let spec = server
        .patch(&format!("{REPLICA_SETS}/a"), "merge-patch", patch)
        .await
        .ok();
    assert_eq!(
        (&spec["spec"]["replicas"], &spec["status"]["replicas"]),
        (&json!(9), &json!(1))
    );
    assert_eq!(server.get(&format!("{REPLICA_SETS}/a/status")).await.ok(), spec);
}

#[tokio::test]
async fn scale_is_a_view() {
    let server = server();
    server.post(REPLICA_SETS, replica_set("a")).await.ok();
    let path = format!("{REPLICA_SETS}/a/scale");
    let mut scale = server.get(&path).await.ok();
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(scale["status"]["selector"], "app=a");
    scale["spec"]["replicas"] = 6.into();
    let scaled = server.put(&path, scale.clone()).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 6);
    assert_eq!(server.put(&path, scale).await.code, 409, "the revision has moved");
    server
        .patch(&path, "merge-patch", json!({ "spec": { "replicas": 1 } }))
        .await
        .ok();
    assert_eq!(
        server.get(&format!("{REPLICA_SETS}/a")).await.ok()["spec"]["replicas"],
        1
    );
    assert_eq!(
        server
            .patch(&path, "merge-patch", json!({ "spec": { "replicas": -1 } }))
            .await
            .refused()
            .0,
        422
    );
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = server();
    server.post(PODS, pod("a")).await.ok();
    let path = format!("{PODS}/a/binding");
    let binding =
        |node: &str| json!({ "metadata": { "name": "a" }, "target": { "kind": "Node", "name": node } });
    let answer = server.post(&path, binding("n")).await;
    assert_eq!(answer.code, 201);
    assert_eq!(answer.ok()["status"], "Success");
    let bound = server.get(&format!("{PODS}/a")).await.ok();
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let (code, message) = server.post(&path, binding("m")).await.refused();
    assert_eq!(code, 409);
    assert!(
        message.ends_with("pod a is already assigned to node \"n\""),
        "{message}"
    );
    let on_node = server
        .get("/api/v1/pods?fieldSelector=spec.nodeName=n")
        .await
        .ok();
    assert_eq!(names(&on_node), ["a"]);
}

#[tokio::test]
async fn eviction_asks_the_budget() {
    let server = server();
    server.post(PODS, pod("a")).await.ok();
    let running =
        json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
    server
        .patch(&format!("{PODS}/a/status"), "merge-patch", running)
        .await
        .ok();
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "metadata": { "name": "b" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "a" } } }
    });
    server.post(budgets, budget).await.ok();
    let status = |allowed: i64| {
        json!({ "status": {
        "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1, "observedGeneration": 1 } })
    };
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "a" } });
    let path = format!("{PODS}/a/eviction");
    server
        .patch(&format!("{budgets}/b/status"), "merge-patch", status(0))
        .await
        .ok();
    let refused = server.post(&path, eviction.clone()).await;
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "DisruptionBudget");
    assert_eq!(
        refused.refused(),
        (
            429,
            "Cannot evict pod as it would violate the pod's disruption budget.".into()
        )
    );
    server
        .patch(&format!("{budgets}/b/status"), "merge-patch", status(1))
        .await
        .ok();
    assert_eq!(server.post(&path, eviction).await.code, 201);
    assert_eq!(server.get(&format!("{PODS}/a")).await.code, 404);
    assert_eq!(
        server.get(&format!("{budgets}/b")).await.ok()["status"]["disruptionsAllowed"],
        0
    );
}

#[tokio::test]
async fn subresources_change_their_part_only() {
    let server = server();
    let made = server.post(PODS, pod("a")).await.ok();
    let mut debugged = made.clone();
    debugged["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "image": "d" }]);
    debugged["spec"]["containers"][0]["image"] = "other".into();
    let path = format!("{PODS}/a/ephemeralcontainers");
    let debugged = server.put(&path, debugged).await.ok();
    assert_eq!(debugged["spec"]["ephemeralContainers"][0]["name"], "debug");
    assert_eq!(debugged["spec"]["containers"][0]["image"], "i:1");
    assert_eq!(
        server.put(&format!("{PODS}/a/finalize"), made).await.refused().0,
        404
    );
}

#[tokio::test]
async fn the_older_path_of_bindings() {
    let server = server();
    server.post(PODS, pod("a")).await.ok();
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "a" }, "target": { "name": "n" } });
    assert_eq!(
        server
            .post("/api/v1/namespaces/default/bindings", binding)
            .await
            .code,
        201
    );
    assert_eq!(
        server.get(&format!("{PODS}/a")).await.ok()["spec"]["nodeName"],
        "n"
    );
}

/// An event stays for an hour after its last change.
#[tokio::test(start_paused = true)]
async fn events_expire() {
    let server = server();
    let store = server.0.registry.store.clone();
    let task = tokio::spawn(crate::registry::event_ttl::run(
        store,
        server.0.stopping.subscribe(),
    ));
    let event = json!({
        "metadata": { "name": "e" }, "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" },
        "reason": "R", "message": "m", "type": "Normal", "source": { "component": "c" }
    });
    let path = "/api/v1/namespaces/default/events";
    server.post(path, event).await.ok();
    tokio::time::sleep(std::time::Duration::from_secs(1800)).await;
    server
        .patch(&format!("{path}/e"), "merge-patch", json!({ "count": 2 }))
        .await
        .ok();
    tokio::time::sleep(std::time::Duration::from_secs(3000)).await;
    assert_eq!(
        server.get(&format!("{path}/e")).await.code,
        200,
        "the change has given it more time"
    );
    let mut watch = server
        .0
        .registry
        .store
        .watch("/events", server.0.registry.store.revision());
    tokio::time::sleep(std::time::Duration::from_secs(700)).await;
    // The deletion is made by the store's own thread, for which no clock is paused.
    watch.next().await.unwrap();
    assert_eq!(server.get(&format!("{path}/e")).await.code, 404);
    server.0.stop();
    task.await.unwrap();
}

#[tokio::test]
async fn tables_of_what_is_not_stored() {
    let server = server();
    let components = server.table("/api/v1/componentstatuses").await;
    assert_eq!(
        components[0],
        [
            json!("controller-manager"),
            json!("Healthy"),
            json!("ok"),
            json!("")
        ]
    );
    assert_eq!(components.len(), 3);
    server.post(REPLICA_SETS, replica_set("web")).await.ok();
    let scale = server.table(&format!("{REPLICA_SETS}/web/scale")).await;
    assert_eq!(scale[0][..3], [json!("web"), json!(2), json!(0)]);
}
