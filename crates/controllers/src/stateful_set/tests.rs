//! Golden cases, and the order in which pods come, change and go.

use super::*;
use crate::testing::{World, golden};
use serde_json::{Value, json};

#[test]
fn cases() {
    golden(&spec(), "stateful_set");
}

fn key() -> Key {
    Key::new("shop", "db")
}

fn set(replicas: i32, policy: &str, partition: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"namespace": "shop", "name": "db", "uid": "ss-1", "generation": 1, "resourceVersion": "1"},
        "spec": {"replicas": replicas, "serviceName": "db", "podManagementPolicy": policy,
                 "selector": {"matchLabels": {"app": "db"}}, "revisionHistoryLimit": 10,
                 "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}},
                 "template": {"metadata": {"labels": {"app": "db"}},
                              "spec": {"containers": [{"name": "c", "image": "v1"}]}}},
    })
}

struct Cluster(World);

impl Cluster {
    fn new(set: Value) -> Self {
        let mut world = World::new(&spec(), "2026-01-01T00:00:00Z".parse().unwrap());
        world.put(set);
        Self(world)
    }

    /// `name image` of each pod.
    fn pods(&self) -> Vec<String> {
        let pods = self.0.cache.list::<Pod>();
        pods.map(|pod| {
            let image = pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap();
            format!("{} {image}", pod.metadata.name.as_deref().unwrap())
        })
        .collect()
    }

    /// Settles, and as long as a pod is not ready makes the first one so. Returns what was there each time.
    fn roll(&mut self) -> Vec<Vec<String>> {
        let mut steps = Vec::new();
        loop {
            self.0.settle(&spec(), &key());
            steps.push(self.pods());
            let pods: Vec<Arc<Pod>> = self.0.cache.list::<Pod>().cloned().collect();
            let Some(next) = pods.iter().find(|pod| !pod::is_ready(pod)) else {
                return steps;
            };
            let mut next = serde_json::to_value(&**next).unwrap();
            next["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
            self.0.put(next);
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let set = self.0.cache.get::<StatefulSet>("shop", "db").unwrap();
        let mut set = serde_json::to_value(&**set).unwrap();
        change(&mut set);
        self.0.put(set);
    }

    fn status(&self) -> k8s_openapi::api::apps::v1::StatefulSetStatus {
        self.0
            .cache
            .get::<StatefulSet>("shop", "db")
            .unwrap()
            .status
            .clone()
            .unwrap()
    }
}

fn set_image(image: &str) -> impl FnOnce(&mut Value) {
    move |set| set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image)
}

#[test]
fn pods_come_and_go_one_by_one_in_order() {
    let mut cluster = Cluster::new(set(3, "OrderedReady", 0));
    let counts: Vec<usize> = cluster.roll().iter().map(Vec::len).collect();
    assert_eq!(counts, [1, 2, 3, 3]);
    assert_eq!(cluster.pods(), ["db-0 v1", "db-1 v1", "db-2 v1"]);
    cluster.edit(|set| set["spec"]["replicas"] = json!(1));
    let plan = plan(&key(), &cluster.0.cache, cluster.0.now);
    let deleted: Vec<_> = plan.actions().collect();
    assert!(
        matches!(deleted[..], [Action::Delete { key, .. }] if key.name == "db-2"),
        "{deleted:?}"
    );
    cluster.roll();
    assert_eq!(cluster.pods(), ["db-0 v1"]);
}

#[test]
fn parallel_pods_come_all_at_once() {
    let mut cluster = Cluster::new(set(3, "Parallel", 0));
    cluster.0.round(&spec(), &key());
    assert_eq!(cluster.pods().len(), 3);
}

#[test]
fn an_update_goes_from_the_highest_down_and_waits_for_each() {
    let mut cluster = Cluster::new(set(3, "OrderedReady", 0));
    cluster.roll();
    cluster.edit(set_image("v2"));
    let steps = cluster.roll();
    assert_eq!(steps[0], ["db-0 v1", "db-1 v1", "db-2 v2"]);
    assert_eq!(steps[1], ["db-0 v1", "db-1 v2", "db-2 v2"]);
    assert_eq!(steps[2], ["db-0 v2", "db-1 v2", "db-2 v2"]);
    let status = cluster.status();
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!(status.updated_replicas, Some(3));
}

#[test]
fn pods_below_the_partition_keep_their_version() {
    let mut cluster = Cluster::new(set(3, "OrderedReady", 2));
    cluster.roll();
    cluster.edit(set_image("v2"));
    cluster.roll();
    assert_eq!(cluster.pods(), ["db-0 v1", "db-1 v1", "db-2 v2"]);
    assert_ne!(
        cluster.status().current_revision,
        cluster.status().update_revision
    );
    // One that is lost comes back in the version that it had.
    cluster.0.cache.remove::<Pod>(&Key::new("shop", "db-0"));
    cluster.0.objects.retain(|(_, key), _| key.name != "db-0");
    cluster.roll();
    assert_eq!(cluster.pods(), ["db-0 v1", "db-1 v1", "db-2 v2"]);
}

#[test]
fn a_pod_that_ended_is_replaced_under_its_name() {
    let mut cluster = Cluster::new(set(1, "OrderedReady", 0));
    cluster.roll();
    let pod = cluster.0.cache.get::<Pod>("shop", "db-0").unwrap();
    let mut failed = serde_json::to_value(&**pod).unwrap();
    failed["status"] = json!({"phase": "Failed"});
    cluster.0.put(failed);
    cluster.0.settle(&spec(), &key());
    let pod = cluster.0.cache.get::<Pod>("shop", "db-0").unwrap();
    assert_eq!(pod::phase(pod), "Pending");
}
