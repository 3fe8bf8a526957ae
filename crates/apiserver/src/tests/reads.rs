//! GET, LIST, tables, discovery.

use super::*;

#[tokio::test]
async fn lists_select_and_page() {
    let server = server();
    for n in 0..5 {
        let mut object = config_map(&format!("c{n}"));
        object["metadata"]["labels"] = json!({ "even": (n % 2 == 0).to_string() });
        server.post(CONFIG_MAPS, object).await.ok();
    }
    server
        .post("/api/v1/namespaces/other/configmaps", config_map("z"))
        .await
        .ok();
    let all = server.get("/api/v1/configmaps").await.ok();
    assert_eq!(all["kind"], "ConfigMapList");
    assert_eq!(all["metadata"]["resourceVersion"], "7");
    assert_eq!(names(&all), ["c0", "c1", "c2", "c3", "c4", "z"]);
    assert!(
        all["items"][0].get("kind").is_none(),
        "as upstream, the list says the kind"
    );
    let even = server
        .get(&format!("{CONFIG_MAPS}?labelSelector=even%3Dtrue"))
        .await
        .ok();
    assert_eq!(names(&even), ["c0", "c2", "c4"]);
    let one = server
        .get("/api/v1/configmaps?fieldSelector=metadata.name=c3")
        .await
        .ok();
    assert_eq!(names(&one), ["c3"]);
    let place = server
        .get("/api/v1/configmaps?fieldSelector=metadata.namespace!=default")
        .await
        .ok();
    assert_eq!(names(&place), ["z"]);
    assert_eq!(
        server
            .get(&format!("{CONFIG_MAPS}?fieldSelector=spec.x=1"))
            .await
            .refused()
            .0,
        400
    );
    assert_eq!(
        server
            .get(&format!("{CONFIG_MAPS}?labelSelector=a%3D%3D%3D"))
            .await
            .refused()
            .0,
        400
    );

    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    assert_eq!(names(&first), ["c0", "c1"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // What happens between pages is not seen.
    server.delete(&format!("{CONFIG_MAPS}/c2")).await.ok();
    server.post(CONFIG_MAPS, config_map("c9")).await.ok();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .ok();
    assert_eq!(names(&second), ["c2", "c3"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .ok();
    assert_eq!(names(&third), ["c4"]);
    assert!(third["metadata"].get("continue").is_none());
    assert_eq!(
        server
            .get(&format!("{CONFIG_MAPS}?continue=nonsense"))
            .await
            .refused()
            .0,
        400
    );
}

#[tokio::test]
async fn revisions_mean_what_upstream_says() {
    let server = server();
    let made = server.post(CONFIG_MAPS, config_map("a")).await.ok();
    let revision = made["metadata"]["resourceVersion"].as_str().unwrap();
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    let exact = format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    assert_eq!(names(&server.get(&exact).await.ok()), ["a"]);
    let newer = format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan");
    assert!(names(&server.get(&newer).await.ok()).is_empty());
    assert!(names(&server.get(&format!("{CONFIG_MAPS}?resourceVersion=0")).await.ok()).is_empty());
    let future = server.get(&format!("{CONFIG_MAPS}?resourceVersion=999")).await;
    assert_eq!(
        future.body["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
    assert_eq!(future.refused().0, 504);
    let lonely = server
        .get(&format!("{CONFIG_MAPS}?resourceVersionMatch=Exact"))
        .await
        .refused();
    assert_eq!(lonely.0, 422);
    assert!(
        lonely
            .1
            .contains("resourceVersionMatch is forbidden unless resourceVersion is provided")
    );
}

#[tokio::test]
async fn a_large_list_is_streamed_whole() {
    let server = server();
    for n in 0..200 {
        let mut object = config_map(&format!("c{n:03}"));
        object["data"]["k"] = "x".repeat(2000).into();
        server.post(CONFIG_MAPS, object).await.ok();
    }
    let list = server.get(CONFIG_MAPS).await.ok();
    assert_eq!(names(&list).len(), 200);
    assert_eq!(names(&list)[199], "c199");
}

#[tokio::test]
async fn tables_and_metadata() {
    let server = server();
    server.post(REPLICA_SETS, replica_set("a")).await.ok();
    let rows = server.table(REPLICA_SETS).await;
    assert_eq!(&rows[0][..4], [json!("a"), json!(2), json!(0), json!(0)]);
    assert_eq!(server.table(&format!("{REPLICA_SETS}/a")).await.len(), 1);

    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = server
        .read(Request::builder().uri(REPLICA_SETS).header("accept", accept), "")
        .await
        .ok();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(names(&list), ["a"]);
    assert!(list["items"][0].get("spec").is_none());
    let request = Request::builder().uri(REPLICA_SETS).header("accept", "text/html");
    assert_eq!(server.read(request, "").await.refused().0, 406);
}

#[tokio::test]
async fn two_groups_show_the_same_events() {
    let server = server();
    let event = json!({
        "metadata": { "name": "e" }, "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" },
        "reason": "Started", "message": "m", "type": "Normal", "source": { "component": "kubelet" }, "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z"
    });
    server.post("/api/v1/namespaces/default/events", event).await.ok();
    let list = server
        .get("/apis/events.k8s.io/v1/events?fieldSelector=regarding.name=p")
        .await
        .ok();
    assert_eq!(list["items"][0]["apiVersion"], "events.k8s.io/v1");
    assert_eq!(list["items"][0]["regarding"]["name"], "p");
    assert_eq!(list["items"][0]["note"], "m");
    let core = server
        .get("/api/v1/events?fieldSelector=involvedObject.name=p")
        .await
        .ok();
    assert_eq!(core["items"][0]["message"], "m");
    assert!(
        names(
            &server
                .get("/api/v1/events?fieldSelector=involvedObject.name=q")
                .await
                .ok()
        )
        .is_empty()
    );
}

#[tokio::test]
async fn discovery_and_health() {
    let server = server();
    assert_eq!(server.get("/api").await.ok()["versions"], json!(["v1"]));
    assert_eq!(server.get("/version").await.ok()["minor"], "36");
    assert_eq!(server.get("/readyz").await.body, "ok");
    assert!(
        server
            .get("/livez?verbose")
            .await
            .body
            .as_str()
            .unwrap()
            .ends_with("livez check passed\n")
    );
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let request = || Request::builder().uri("/apis").header("accept", accept);
    let aggregated = server.read(request(), "").await;
    let tag = aggregated.headers["etag"].clone();
    assert_eq!(aggregated.ok()["kind"], "APIGroupDiscoveryList");
    assert_eq!(
        server.read(request().header("if-none-match", tag), "").await.code,
        304
    );
    let (code, message) = server.get("/apis/none.example/v1/things").await.refused();
    assert_eq!(
        (code, message.as_str()),
        (404, "the server could not find the requested resource")
    );
    assert_eq!(server.get("/nothing").await.refused().0, 404);
    assert_eq!(server.post("/api/v1/pods", pod("a")).await.refused().0, 405);
    assert!(
        server
            .get("/metrics")
            .await
            .body
            .as_str()
            .unwrap()
            .contains("apiserver_request_total")
    );
}

/// Every resource that discovery announces can be listed, and watched where it says so.
#[tokio::test]
async fn everything_announced_is_served() {
    let server = server();
    for resource in coracle_api::resources::all() {
        let root = match resource.group {
            "" => format!("/api/{}", resource.version),
            group => format!("/apis/{group}/{}", resource.version),
        };
        if resource.verbs.iter().any(|verb| verb.as_str() == "list") {
            let path = format!("{root}/{}", resource.plural);
            assert_eq!(
                server.get(&path).await.ok()["kind"],
                resource.list_kind(),
                "{path}"
            );
            if resource.is_stored() {
                server.table(&path).await;
            }
        }
    }
}

#[tokio::test]
async fn openapi_in_the_form_that_is_asked_for() {
    let server = server();
    let get = async |path: &str, accept: &'static str| {
        let request = Request::builder().uri(path).header("accept", accept);
        let response = server.send(request, "").await;
        let content_type = response.headers().get("content-type").cloned();
        (response.status().as_u16(), content_type.unwrap())
    };
    let protobuf = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    for accept in [protobuf, old] {
        let (code, content_type) = get("/openapi/v2", accept).await;
        assert_eq!((code, content_type.to_str().unwrap()), (200, protobuf));
    }
    for accept in ["*/*", "application/json", "text/html, application/json;q=0.1"] {
        let (code, content_type) = get("/openapi/v2", accept).await;
        assert_eq!((code, content_type.to_str().unwrap()), (200, "application/json"));
    }
    assert_eq!(get("/openapi/v2", "text/html").await.0, 406);
    assert_eq!(get("/openapi/v3/apis/apps/v1", protobuf).await.0, 406);
}

#[tokio::test]
async fn json_for_the_eye() {
    let server = server();
    server.post(CONFIG_MAPS, config_map("a")).await.ok();
    let get = async |path: &str, agent: &'static str| {
        let request = Request::builder().uri(path).header("user-agent", agent);
        let body = server.send(request, "").await.into_body();
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    let path = format!("{CONFIG_MAPS}/a");
    let compact = get(&path, "kubectl/v1.32.4").await;
    assert!(!compact.contains('\n'));
    let pretty = get(&path, "curl/8.0").await;
    assert!(pretty.starts_with("{\n  \"apiVersion\": \"v1\""), "{pretty}");
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(parse(&pretty), parse(&compact));
    assert_eq!(get(&format!("{path}?pretty=false"), "curl/8.0").await, compact);
    assert_eq!(
        get(&format!("{path}?pretty=true"), "kubectl/v1.32.4").await,
        pretty
    );
    assert!(
        get("/apis/apps/v9", "curl/8.0")
            .await
            .contains("\n  \"code\": 404")
    );
}

#[tokio::test]
async fn methods_where_they_have_no_place() {
    let server = server();
    let put = server.put(CONFIG_MAPS, config_map("a")).await;
    let (code, message) = put.refused();
    assert_eq!(
        (code, message.as_str()),
        (
            405,
            "the server does not allow this method on the requested resource"
        )
    );
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(server.post(&path, config_map("a")).await.code, 405);
    assert_eq!(
        server.patch(CONFIG_MAPS, "merge-patch", json!({})).await.code,
        405
    );
}
