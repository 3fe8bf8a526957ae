//! The driver's promises, against a fake server with an awkward network.

use super::*;
use crate::events::recorder;
use crate::fake_server::FakeServer;
use coracle_meta::{GroupResource, Status};
use coracle_reconcile::Watch;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;
use std::time::Duration;

/// A controller in the manner of ReplicaSet: for each ConfigMap, `data.want` Secrets of its name.
fn sets() -> Spec {
    Spec::new("sets", |key, cache, _| {
        let mut plan = Plan::nothing();
        let Some(set) = cache.get::<ConfigMap>(&key.namespace, &key.name) else {
            return plan;
        };
        let data = set.data.clone().unwrap_or_default();
        if data.contains_key("panic") {
            panic!("asked to");
        }
        let want: usize = data["want"].parse().unwrap();
        let prefix = format!("{}-", key.name);
        let have: Vec<_> = cache
            .in_namespace::<Secret>(&key.namespace)
            .filter(|secret| Key::of(&***secret).name.starts_with(&prefix))
            .collect();
        for surplus in have.iter().skip(want) {
            plan.push(Action::delete(&***surplus));
        }
        let missing = (have.len()..want).map(|_| Action::Create {
            resource: Cache::resource_of::<Secret>(),
            namespace: key.namespace.clone(),
            object: json!({"metadata": {"generateName": prefix}}),
        });
        plan.slow_start(missing);
        plan
    })
    .watch(Watch::of(|set: &ConfigMap, _| vec![Key::of(set)]))
    .watch(Watch::of(|secret: &Secret, _| {
        let key = Key::of(secret);
        let name = key.name.split('-').next().unwrap_or_default();
        vec![Key::new(key.namespace, name)]
    }))
}

fn set(want: usize) -> serde_json::Value {
    json!({"data": {"want": want.to_string()}})
}

/// Runs controllers against a server while `test` runs.
async fn with(server: &FakeServer, specs: Vec<Spec>, test: impl Future<Output = ()>) {
    let client = server.client();
    let (events, writer) = recorder(client.clone());
    let clients = Clients {
        watcher: client.clone(),
        writer: Box::new(move |_| client.clone()),
    };
    tokio::select! {
        () = run(specs, clients, events, || ()) => panic!("the driver ended"),
        () = writer => panic!("the recorder ended"),
        () = test => {}
    }
}

/// Lets everything that can happen happen, timers shorter than a second included: time is paused.
async fn quiet() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn it_creates_what_is_missing_and_deletes_what_is_too_much() {
    let server = FakeServer::default();
    server.put("configmaps", "ns", "a", set(3));
    with(&server, vec![sets()], async {
        quiet().await;
        assert_eq!(server.count("secrets"), 3);
        server.put("configmaps", "ns", "a", set(1));
        quiet().await;
        assert_eq!(server.count("secrets"), 1);
        server.remove(
            "secrets",
            "ns",
            server.objects("secrets")[0]["metadata"]["name"].as_str().unwrap(),
        );
        quiet().await;
        assert_eq!(server.count("secrets"), 1, "replaced");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn it_does_not_plan_again_before_it_sees_what_it_wrote() {
    let server = FakeServer::default();
    with(&server, vec![sets()], async {
        quiet().await;
        server.hold("secrets");
        server.put("configmaps", "ns", "a", set(2));
        quiet().await;
        assert_eq!(server.count("secrets"), 2);
        // The cache still shows none, and the key becomes dirty: a naive controller would create two more.
        let mut again = set(2);
        again["metadata"] = json!({"labels": {"touched": "yes"}});
        server.put("configmaps", "ns", "a", again);
        quiet().await;
        assert_eq!(server.count("secrets"), 2);
        server.release();
        quiet().await;
        assert_eq!(server.count("secrets"), 2);
        // The same for deletes.
        server.hold("secrets");
        server.put("configmaps", "ns", "a", set(1));
        quiet().await;
        server.put("configmaps", "ns", "a", set(0));
        quiet().await;
        assert_eq!(server.count("secrets"), 1, "it waits for its first delete");
        server.release();
        quiet().await;
        assert_eq!(server.count("secrets"), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_stops_early_and_is_tried_again_later() {
    let server = FakeServer::default();
    let refusal = Status::forbidden(&GroupResource::new("", "secrets"), "", "exceeded quota");
    server.put("configmaps", "ns", "a", set(8));
    server.refuse(&refusal, 3);
    with(&server, vec![sets()], async {
        quiet().await;
        assert_eq!(server.count("secrets"), 8);
        let posts = server
            .log()
            .iter()
            .filter(|line| line.starts_with("POST"))
            .count();
        assert_eq!(
            posts,
            3 + 8,
            "a refusal is asked for once a round, not eight times"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_key_leaves_the_others_alone() {
    let server = FakeServer::default();
    server.put("configmaps", "ns", "bad", json!({"data": {"panic": "yes"}}));
    server.put("configmaps", "ns", "good", set(1));
    with(&server, vec![sets()], async {
        quiet().await;
        assert_eq!(server.count("secrets"), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_requeue_comes_when_it_is_due_and_what_follows_sees_the_outcome() {
    let spec = || {
        Spec::new("ticks", |key, _, _| {
            let mut plan = Plan::nothing();
            plan.requeue(Duration::from_secs(60));
            plan.push(Action::Create {
                resource: Cache::resource_of::<Secret>(),
                namespace: key.namespace.clone(),
                object: json!({"metadata": {"generateName": "tick-"}}),
            });
            plan
        })
        .watch(Watch::of(|set: &ConfigMap, _| vec![Key::of(set)]))
        .after(|key, _, _, outcome, _| {
            let created = outcome.results[0].as_ref().unwrap();
            vec![Action::Event {
                regarding: json!({"kind": "ConfigMap", "namespace": key.namespace, "name": key.name}),
                event_type: coracle_reconcile::EventType::Normal,
                reason: "Tick".into(),
                message: format!("Created {}", created["metadata"]["name"].as_str().unwrap()),
            }]
        })
    };
    let server = FakeServer::default();
    server.put("configmaps", "ns", "a", set(0));
    with(&server, vec![spec()], async {
        quiet().await;
        assert_eq!(server.count("secrets"), 1);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(server.count("secrets"), 2);
        let messages: Vec<_> = server
            .objects("events")
            .iter()
            .map(|e| e["message"].clone())
            .collect();
        assert_eq!(messages.len(), 2);
        assert!(messages.contains(&json!("Created tick-2")), "{messages:?}");
    })
    .await;
}
