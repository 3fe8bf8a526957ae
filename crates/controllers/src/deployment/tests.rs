//! Golden cases, and whole rollouts together with the ReplicaSet controller.

use super::*;
use crate::testing::{World, golden};
use coracle_meta::object::ObjectExt;
use serde_json::{Value, json};

#[test]
fn cases() {
    golden(&spec(), "deployment");
}

/// A cluster whose pods become ready when the test says so.
struct Cluster {
    world: World,
    deployments: Spec,
    replica_sets: Spec,
    most_pods: usize,
    least_ready: usize,
}

impl Cluster {
    fn new(deployment: Value) -> Self {
        let mut world = World::new(&spec(), "2026-01-01T00:00:00Z".parse().unwrap());
        world.put(deployment);
        Self {
            world,
            deployments: spec(),
            replica_sets: crate::replica_set::spec(),
            most_pods: 0,
            least_ready: usize::MAX,
        }
    }

    fn key() -> Key {
        Key::new("shop", "web")
    }

    /// Runs both controllers until nothing changes.
    fn settle(&mut self) {
        let mut before = String::new();
        for _ in 0..50 {
            self.world.round(&self.deployments, &Self::key());
            let sets: Vec<Key> = self
                .world
                .cache
                .list::<ReplicaSet>()
                .map(|set| Key::of(&**set))
                .collect();
            for key in sets {
                self.world.round(&self.replica_sets, &key);
            }
            let ready = self.pods(crate::pod::is_ready).len();
            self.most_pods = self.most_pods.max(self.pods(|_| true).len());
            self.least_ready = self.least_ready.min(ready);
            let after = format!("{:?}", self.world.objects);
            if before == after {
                return;
            }
            before = after;
        }
        panic!("the controllers never rest");
    }

    fn pods(&self, wanted: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        self.world
            .cache
            .list::<Pod>()
            .filter(|pod| wanted(pod))
            .cloned()
            .collect()
    }

    /// One pod more becomes ready; false if all are.
    fn make_one_ready(&mut self, image: &str) -> bool {
        let waiting = self.pods(|pod| !crate::pod::is_ready(pod) && image_of(pod) == image);
        let Some(pod) = waiting.first() else {
            return false;
        };
        let mut pod = serde_json::to_value(&**pod).unwrap();
        pod["status"] = json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": self.world.now}]});
        self.world.put(pod);
        true
    }

    /// Lets pods of an image become ready one by one.
    fn roll(&mut self, image: &str) {
        self.settle();
        while self.make_one_ready(image) {
            self.settle();
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let deployment = self.world.cache.get::<Deployment>("shop", "web").unwrap();
        let mut deployment = serde_json::to_value(&**deployment).unwrap();
        change(&mut deployment);
        deployment["metadata"]["generation"] = json!(deployment.generation() + 1);
        self.world.put(deployment);
    }

    fn deployment(&self) -> Value {
        serde_json::to_value(&**self.world.cache.get::<Deployment>("shop", "web").unwrap()).unwrap()
    }

    /// `image replicas revision` of each ReplicaSet, sorted.
    fn sets(&self) -> Vec<String> {
        let mut sets: Vec<String> = self
            .world
            .cache
            .list::<ReplicaSet>()
            .map(|set| {
                let spec = set.spec.as_ref().unwrap();
                let pod = spec.template.as_ref().unwrap().spec.as_ref().unwrap();
                let image = pod.containers[0].image.as_deref().unwrap();
                let annotations = set.metadata.annotations.as_ref().unwrap();
                format!("{image} {} r{}", spec.replicas.unwrap(), annotations[REVISION])
            })
            .collect();
        sets.sort();
        sets
    }

    fn condition(&self, condition_type: &str) -> Value {
        let deployment = self.deployment();
        let conditions = deployment["status"]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|c| c["type"] == condition_type);
        found.cloned().unwrap_or_default()
    }
}

fn image_of(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

fn deployment(replicas: i32, strategy: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "shop", "name": "web", "uid": "d-1", "generation": 1, "resourceVersion": "1",
                     "annotations": {"team": "a"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
                 "revisionHistoryLimit": 2, "progressDeadlineSeconds": 600,
                 "template": {"metadata": {"labels": {"app": "web"}},
                              "spec": {"containers": [{"name": "c", "image": "v1"}]}}},
    })
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn set_image(image: &str) -> impl FnOnce(&mut Value) {
    move |deployment| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    }
}

#[test]
fn a_rolling_update_keeps_within_its_bounds() {
    for (surge, unavailable, most, least) in [
        (json!("25%"), json!("25%"), 5, 3),
        (json!(1), json!(0), 5, 4),
        (json!(0), json!(1), 4, 3),
        (json!("100%"), json!(0), 8, 4),
        (json!(0), json!("100%"), 4, 0),
    ] {
        let mut cluster = Cluster::new(deployment(4, rolling(surge.clone(), unavailable.clone())));
        cluster.roll("v1");
        assert_eq!(cluster.sets(), ["v1 4 r1"]);
        (cluster.most_pods, cluster.least_ready) = (0, usize::MAX);
        cluster.edit(set_image("v2"));
        cluster.roll("v2");
        assert_eq!(cluster.sets(), ["v1 0 r1", "v2 4 r2"]);
        assert!(
            cluster.most_pods <= most,
            "surge {surge}: {} pods",
            cluster.most_pods
        );
        assert!(
            cluster.least_ready >= least,
            "unavailable {unavailable}: {}",
            cluster.least_ready
        );
        let deployment = cluster.deployment();
        assert_eq!(deployment["metadata"]["annotations"][REVISION], "2");
        assert_eq!(deployment["status"]["updatedReplicas"], 4);
        assert_eq!(deployment["status"]["unavailableReplicas"], Value::Null);
        assert_eq!(
            cluster.condition("Progressing")["reason"],
            "NewReplicaSetAvailable"
        );
        assert_eq!(cluster.condition("Available")["status"], "True");
    }
}

#[test]
fn recreate_never_overlaps() {
    let mut cluster = Cluster::new(deployment(2, json!({"type": "Recreate"})));
    cluster.roll("v1");
    cluster.edit(set_image("v2"));
    // Pods take a while to go.
    let going = cluster.pods(|_| true)[0].clone();
    cluster.settle();
    assert_eq!(
        cluster.sets(),
        ["v1 0 r1", "v2 2 r2"],
        "all are gone at once in this world"
    );
    assert!(cluster.pods(|pod| image_of(pod) == "v1").is_empty());
    // With one that lingers, the next version waits.
    cluster.roll("v2");
    let mut lingering = serde_json::to_value(&*going).unwrap();
    lingering["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    cluster.world.put(lingering);
    cluster.edit(set_image("v3"));
    cluster.settle();
    assert_eq!(cluster.sets(), ["v1 0 r1", "v2 0 r2"]);
    let key = Key::of(&*going);
    cluster.world.cache.remove::<Pod>(&key);
    cluster.settle();
    assert_eq!(cluster.sets(), ["v1 0 r1", "v2 0 r2", "v3 2 r3"]);
}

#[test]
fn going_back_reuses_the_old_set_and_remembers_its_revisions() {
    let mut cluster = Cluster::new(deployment(2, rolling(json!(1), json!(0))));
    cluster.roll("v1");
    cluster.edit(set_image("v2"));
    cluster.roll("v2");
    cluster.edit(set_image("v1"));
    cluster.roll("v1");
    assert_eq!(cluster.sets(), ["v1 2 r3", "v2 0 r2"]);
    let sets: Vec<_> = cluster.world.cache.list::<ReplicaSet>().collect();
    let histories: Vec<_> = sets
        .iter()
        .filter_map(|set| {
            set.metadata
                .annotations
                .as_ref()
                .unwrap()
                .get("deployment.kubernetes.io/revision-history")
        })
        .collect();
    assert_eq!(histories, ["1"]);
}

#[test]
fn only_so_many_old_versions_are_kept() {
    let mut cluster = Cluster::new(deployment(1, rolling(json!(1), json!(0))));
    for image in ["v1", "v2", "v3", "v4"] {
        cluster.edit(set_image(image));
        cluster.roll(image);
    }
    assert_eq!(cluster.sets(), ["v2 0 r2", "v3 0 r3", "v4 1 r4"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut cluster = Cluster::new(deployment(2, rolling(json!(1), json!(0))));
    cluster.roll("v1");
    cluster.edit(|deployment| {
        deployment["spec"]["paused"] = json!(true);
        deployment["spec"]["replicas"] = json!(3);
        set_image("v2")(deployment);
    });
    cluster.roll("v1");
    assert_eq!(cluster.sets(), ["v1 3 r1"]);
    assert_eq!(cluster.condition("Progressing")["reason"], "DeploymentPaused");
    cluster.edit(|deployment| deployment["spec"]["paused"] = json!(false));
    cluster.roll("v2");
    assert_eq!(cluster.sets(), ["v1 0 r1", "v2 3 r2"]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let mut cluster = Cluster::new(deployment(10, rolling(json!(3), json!(2))));
    cluster.roll("v1");
    cluster.edit(set_image("broken"));
    cluster.settle();
    assert_eq!(cluster.sets(), ["broken 5 r2", "v1 8 r1"]);
    cluster.edit(|deployment| deployment["spec"]["replicas"] = json!(15));
    cluster.world.round(&spec(), &Cluster::key());
    assert_eq!(cluster.sets(), ["broken 7 r2", "v1 11 r1"]);
}

#[test]
fn a_rollout_that_stands_still_fails_and_recovers() {
    let mut cluster = Cluster::new(deployment(2, rolling(json!(1), json!(0))));
    cluster.roll("v1");
    cluster.edit(set_image("broken"));
    cluster.settle();
    let plan = plan(&Cluster::key(), &cluster.world.cache, cluster.world.now);
    assert_eq!(plan.requeue_after, Some(std::time::Duration::from_secs(601)));
    cluster.world.now = "2026-01-01T00:10:01Z".parse().unwrap();
    cluster.settle();
    assert_eq!(
        cluster.condition("Progressing")["reason"],
        "ProgressDeadlineExceeded"
    );
    assert_eq!(
        cluster.condition("Available")["status"],
        "True",
        "the old pods still serve"
    );
    cluster.edit(set_image("v2"));
    cluster.roll("v2");
    assert_eq!(
        cluster.condition("Progressing")["reason"],
        "NewReplicaSetAvailable"
    );
    assert_eq!(cluster.sets(), ["broken 0 r2", "v1 0 r1", "v2 2 r3"]);
}

#[test]
fn a_name_that_is_taken_is_a_collision() {
    let mut cluster = Cluster::new(deployment(1, rolling(json!(1), json!(0))));
    let plan = plan(&Cluster::key(), &cluster.world.cache, cluster.world.now);
    let Some(Action::Create { object, .. }) = plan.actions().next() else {
        panic!("a ReplicaSet");
    };
    let mut stranger = object.clone();
    stranger["metadata"]["uid"] = json!("rs-9");
    stranger["metadata"]["ownerReferences"] = json!([]);
    stranger["metadata"]["labels"] = json!({});
    stranger["spec"]["replicas"] = json!(0);
    cluster.world.put(stranger);
    cluster.roll("v1");
    assert_eq!(cluster.deployment()["status"]["collisionCount"], 1);
    assert_eq!(cluster.pods(|_| true).len(), 1);
}
