//! WATCH.

use super::*;
use std::collections::VecDeque;

/// A watch as a client reads it.
struct Watch {
    body: Body,
    lines: VecDeque<Value>,
    rest: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let frame = self.body.frame().await?.unwrap();
            self.rest.extend_from_slice(frame.data_ref().unwrap());
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.lines.push_back(serde_json::from_slice(&line).unwrap());
            }
        }
    }

    /// The next event as its type, the object's name, and its revision.
    async fn short(&mut self) -> (String, String, u64) {
        let event = self.next().await.unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &event["object"]["metadata"];
        (
            text(&event["type"]),
            text(&metadata["name"]),
            text(&metadata["resourceVersion"]).parse().unwrap(),
        )
    }
}

impl Server {
    async fn watch(&self, path: &str) -> Watch {
        let response = self.send(Request::builder().uri(path), "").await;
        assert_eq!(response.status(), 200);
        Watch {
            body: response.into_body(),
            lines: VecDeque::new(),
            rest: Vec::new(),
        }
    }
}

fn event(kind: &str, name: &str, revision: u64) -> (String, String, u64) {
    (kind.to_owned(), name.to_owned(), revision)
}

#[tokio::test]
async fn present_first_then_every_change() {
    let server = server();
    server.post(CONFIG_MAPS, config_map("a")).await.ok();
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(watch.short().await, event("ADDED", "a", 2));
    let mut after = server
        .watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=2"))
        .await;
    server
        .post("/api/v1/namespaces/other/configmaps", config_map("z"))
        .await
        .ok();
    server
        .patch(
            &format!("{CONFIG_MAPS}/a"),
            "merge-patch",
            json!({ "data": { "x": "y" } }),
        )
        .await
        .ok();
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    for watch in [&mut watch, &mut after] {
        assert_eq!(watch.short().await, event("MODIFIED", "a", 4));
        assert_eq!(
            watch.short().await,
            event("DELETED", "a", 5),
            "with the revision of the deletion"
        );
    }
}

#[tokio::test]
async fn selected_objects_come_and_go() {
    let server = server();
    let mut watch = server
        .watch(&format!(
            "{CONFIG_MAPS}?watch=true&resourceVersion=1&labelSelector=in%3Dyes"
        ))
        .await;
    server.post(CONFIG_MAPS, config_map("a")).await.ok();
    let label = |value: &str| json!({ "metadata": { "labels": { "in": value } } });
    let path = format!("{CONFIG_MAPS}/a");
    for value in ["yes", "no", "yes"] {
        server.patch(&path, "merge-patch", label(value)).await.ok();
    }
    assert_eq!(watch.short().await, event("ADDED", "a", 3));
    let gone = watch.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(
        gone["object"]["metadata"]["labels"]["in"], "yes",
        "as it was last selected"
    );
    assert_eq!(gone["object"]["metadata"]["resourceVersion"], "4");
    assert_eq!(watch.short().await, event("ADDED", "a", 5));
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = server();
    server.post(CONFIG_MAPS, config_map("a")).await.ok();
    let path =
        "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}{path}")).await;
    assert_eq!(watch.short().await.0, "ADDED");
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], "2");
    let wrong = server
        .get(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true"))
        .await
        .refused();
    assert_eq!(wrong.0, 422);
}

#[tokio::test]
async fn a_watch_of_tables_names_columns_once() {
    let server = server();
    let request = Request::builder()
        .uri(format!("{CONFIG_MAPS}?watch=true"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    for name in ["a", "b"] {
        server.post(CONFIG_MAPS, config_map(name)).await.ok();
    }
    let mut watch = Watch {
        body: server.send(request, "").await.into_body(),
        lines: VecDeque::new(),
        rest: Vec::new(),
    };
    let first = watch.next().await.unwrap();
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    let second = watch.next().await.unwrap();
    assert_eq!(second["object"]["columnDefinitions"], Value::Null);
    assert_eq!(second["object"]["rows"][0]["object"]["metadata"]["name"], "b");
}

#[tokio::test]
async fn a_watch_ends_in_time_and_with_the_server() {
    let server = server();
    let path = format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true");
    let mut timed = server.watch(&path).await;
    let mut long = server.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(
        timed.next().await.unwrap()["type"],
        "BOOKMARK",
        "so that the next watch starts late"
    );
    assert!(timed.next().await.is_none());
    server.0.stop();
    assert!(long.next().await.is_none());
}

#[tokio::test]
async fn history_that_is_gone_is_an_error_event() {
    let server = server();
    let mut watch = server
        .watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=1"))
        .await;
    // Longer than the history: the watcher, which has not read, falls behind.
    let made = server.post(CONFIG_MAPS, config_map("a")).await.ok();
    for n in 0..2500 {
        let mut object = made.clone();
        object["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("resourceVersion");
        object["data"]["k"] = n.to_string().into();
        server.put(&format!("{CONFIG_MAPS}/a"), object).await.ok();
    }
    let error = watch.next().await.unwrap();
    assert_eq!(error["type"], "ERROR");
    assert_eq!(error["object"]["code"], 410);
    assert_eq!(error["object"]["reason"], "Expired");
    assert!(watch.next().await.is_none());
}
