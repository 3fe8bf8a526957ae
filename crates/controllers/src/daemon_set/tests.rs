//! Golden cases, and updates over several nodes.

use super::*;
use crate::testing::{World, golden};
use serde_json::{Value, json};

#[test]
fn cases() {
    golden(&spec(), "daemon_set");
}

fn key() -> Key {
    Key::new("kube-system", "agent")
}

fn daemon_set(image: &str, rolling: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"namespace": "kube-system", "name": "agent", "uid": "ds-1", "generation": 1,
                     "resourceVersion": "1"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "revisionHistoryLimit": 1,
                 "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
                 "template": {"metadata": {"labels": {"app": "agent"}},
                              "spec": {"containers": [{"name": "c", "image": image}]}}},
    })
}

struct Cluster(World);

impl Cluster {
    fn new(nodes: usize, rolling: Value) -> Self {
        let mut world = World::new(&spec(), "2026-01-01T00:00:00Z".parse().unwrap());
        for index in 0..nodes {
            let name = format!("n{index}");
            world.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}));
        }
        world.put(daemon_set("v1", rolling));
        Self(world)
    }

    /// Rounds until nothing changes; then pods become ready one by one. Returns the fewest ready and the most pods.
    fn roll(&mut self) -> (usize, usize) {
        let (mut fewest, mut most) = (usize::MAX, 0);
        loop {
            self.0.settle(&spec(), &key());
            let pods: Vec<Arc<Pod>> = self.0.cache.list::<Pod>().cloned().collect();
            let ready = pods.iter().filter(|pod| pod::is_ready(pod)).count();
            (fewest, most) = (fewest.min(ready), most.max(pods.len()));
            let Some(next) = pods.iter().find(|pod| !pod::is_ready(pod)) else {
                return (fewest, most);
            };
            let mut next = serde_json::to_value(&**next).unwrap();
            let node = nodes::target(&serde_json::from_value(next.clone()).unwrap())
                .unwrap()
                .to_owned();
            next["spec"]["nodeName"] = json!(node);
            next["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
            self.0.put(next);
        }
    }

    fn set_image(&mut self, image: &str) {
        let set = self.0.cache.get::<DaemonSet>("kube-system", "agent").unwrap();
        let mut set = serde_json::to_value(&**set).unwrap();
        set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        self.0.put(set);
    }

    fn images(&self) -> Vec<String> {
        let pods = self.0.cache.list::<Pod>();
        pods.map(|pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap())
            .collect()
    }
}

#[test]
fn an_update_replaces_few_pods_at_a_time() {
    let mut cluster = Cluster::new(4, json!({"maxUnavailable": 1}));
    cluster.roll();
    assert_eq!(cluster.images(), ["v1"; 4]);
    cluster.set_image("v2");
    let (fewest, most) = cluster.roll();
    assert_eq!(cluster.images(), ["v2"; 4]);
    assert!(fewest >= 3, "{fewest}");
    assert!(most <= 4, "{most}");
    let status = cluster
        .0
        .cache
        .get::<DaemonSet>("kube-system", "agent")
        .unwrap()
        .status
        .clone()
        .unwrap();
    assert_eq!(status.updated_number_scheduled, Some(4));
    assert_eq!(status.number_available, Some(4));
}

#[test]
fn a_surge_never_takes_a_ready_pod_away_first() {
    let mut cluster = Cluster::new(3, json!({"maxUnavailable": 0, "maxSurge": 1}));
    cluster.roll();
    cluster.set_image("v2");
    let (fewest, most) = cluster.roll();
    assert_eq!(cluster.images(), ["v2"; 3]);
    assert!(fewest >= 3, "{fewest}");
    assert!(most <= 4, "{most}");
}

#[test]
fn history_is_kept_within_its_limit_and_reused() {
    let mut cluster = Cluster::new(1, json!({"maxUnavailable": 1}));
    for image in ["v1", "v2", "v3", "v2"] {
        cluster.set_image(image);
        cluster.roll();
    }
    let mut revisions: Vec<i64> = cluster
        .0
        .cache
        .list::<ControllerRevision>()
        .map(|r| r.revision)
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [3, 4], "going back gives an old revision a new number");
}

#[test]
fn a_pod_that_fails_at_once_is_not_replaced_at_once() {
    let mut cluster = Cluster::new(1, json!({"maxUnavailable": 1}));
    cluster.roll();
    let pod = cluster.0.cache.list::<Pod>().next().unwrap();
    let mut failed = serde_json::to_value(&**pod).unwrap();
    failed["status"] = json!({"phase": "Failed"});
    cluster.0.put(failed);
    let waits = plan(&key(), &cluster.0.cache, cluster.0.now);
    assert!(!waits.has_actions());
    assert_eq!(waits.requeue_after, Some(Duration::from_secs(10)));
    let later = cluster.0.now + REPLACE_AFTER;
    assert!(plan(&key(), &cluster.0.cache, later).has_actions());
}
