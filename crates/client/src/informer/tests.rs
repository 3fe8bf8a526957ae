//! What a consumer hears through broken watches and lost history.

use super::*;
use crate::fake_server::FakeServer;
use serde_json::json;

fn start(server: &FakeServer) -> mpsc::Receiver<Event> {
    let (consumer, events) = mpsc::channel(64);
    let pods = GroupVersionResource::new("", "v1", "pods");
    tokio::spawn(run(server.client(), pods, Options::default(), consumer));
    events
}

/// Everything that comes until nothing more does: time is paused.
async fn heard(events: &mut mpsc::Receiver<Event>) -> Vec<String> {
    let mut heard = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(100), events.recv()).await {
        heard.push(match event {
            Event::Synced(revision) => format!("synced {revision}"),
            Event::Applied { key, revision, .. } => format!("applied {key} {revision}"),
            Event::Deleted { key, .. } => format!("deleted {key}"),
            Event::Progress(revision) => format!("progress {revision}"),
        });
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn it_lists_then_watches() {
    let server = FakeServer::default();
    server.put("pods", "ns", "a", json!({}));
    let mut events = start(&server);
    assert_eq!(heard(&mut events).await, ["applied ns/a 0", "synced 1"]);
    server.put("pods", "ns", "b", json!({}));
    server.remove("pods", "ns", "a");
    assert_eq!(heard(&mut events).await, ["applied ns/b 2", "deleted ns/a"]);
}

#[tokio::test(start_paused = true)]
async fn it_resumes_where_a_watch_broke_off() {
    let server = FakeServer::default();
    let mut events = start(&server);
    heard(&mut events).await;
    server.break_watches();
    server.put("pods", "ns", "a", json!({}));
    server.put("pods", "ns", "a", json!({}));
    assert_eq!(heard(&mut events).await, ["applied ns/a 1", "applied ns/a 2"]);
    let lists = server.log().iter().filter(|l| *l == "GET /api/v1/pods").count();
    assert!(lists >= 3, "one list and two watches");
}

#[tokio::test(start_paused = true)]
async fn after_410_it_tells_only_what_is_different() {
    let server = FakeServer::default();
    for name in ["stays", "changes", "goes"] {
        server.put("pods", "ns", name, json!({}));
    }
    let mut events = start(&server);
    heard(&mut events).await;
    server.break_watches();
    server.put("pods", "ns", "changes", json!({}));
    server.remove("pods", "ns", "goes");
    server.compact();
    assert_eq!(
        heard(&mut events).await,
        ["applied ns/changes 3", "deleted ns/goes", "synced 5"],
        "in the middle of a list nobody has been told everything up to 4"
    );
    server.put("pods", "ns", "new", json!({}));
    assert_eq!(heard(&mut events).await, ["applied ns/new 6"]);
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_consumer() {
    let server = FakeServer::default();
    let (consumer, events) = mpsc::channel(1);
    let pods = GroupVersionResource::new("", "v1", "pods");
    let task = tokio::spawn(run(server.client(), pods, Options::default(), consumer));
    drop(events);
    task.await.expect("it returns");
}
