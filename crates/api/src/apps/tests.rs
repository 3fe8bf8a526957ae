//! Golden cases of StatefulSets, DaemonSets and ControllerRevisions; ReplicaSets and Deployments are among
//! those of all kinds.

use crate::strategy::strategy;
use crate::tests::{create, named, row, update, wrong};
use serde_json::{Value, json};

fn spec() -> Value {
    json!({
        "selector": {"matchLabels": {"app": "db"}},
        "template": {
            "metadata": {"labels": {"app": "db"}},
            "spec": {"containers": [{"name": "db", "image": "mongo:3.3",
                "volumeMounts": [{"name": "data", "mountPath": "/data/db"}]}]},
        },
    })
}

fn stateful_set() -> Value {
    let mut spec = spec();
    spec["serviceName"] = json!("db");
    spec["replicas"] = json!(3);
    spec["volumeClaimTemplates"] = json!([{
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2048Mi"}}},
    }]);
    named(strategy("apps", "StatefulSet"), "db", json!({"spec": spec}))
}

#[test]
fn a_stateful_set() {
    let kind = strategy("apps", "StatefulSet");
    let mut set = stateful_set();
    assert_eq!(create(kind, &mut set), "");
    let spec = &set["spec"];
    assert_eq!(spec["podManagementPolicy"], "OrderedReady");
    assert_eq!(
        spec["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    );
    assert_eq!(
        spec["persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
    );
    assert_eq!(spec["revisionHistoryLimit"], 10);
    let claim = &spec["volumeClaimTemplates"][0];
    assert_eq!(claim["apiVersion"], "v1");
    assert_eq!(claim["kind"], "PersistentVolumeClaim");
    assert_eq!(claim["spec"]["volumeMode"], "Filesystem");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "2Gi");
    assert_eq!(claim["status"], json!({"phase": "Pending"}));
    assert_eq!(set["status"], json!({"replicas": 0, "availableReplicas": 0}));
    set["status"]["readyReplicas"] = json!(1);
    assert_eq!(row(kind, &set), json!(["db", "1/3", "5m", "db", "mongo:3.3"]));
}

#[test]
fn what_an_update_of_a_stateful_set_may_change() {
    let kind = strategy("apps", "StatefulSet");
    let mut old = stateful_set();
    create(kind, &mut old);
    let mut scaled = old.clone();
    scaled["spec"]["replicas"] = json!(5);
    scaled["spec"]["template"]["spec"]["containers"][0]["image"] = json!("mongo:3.4");
    assert_eq!(update(kind, &mut scaled, &old), "");
    assert_eq!(scaled["metadata"]["generation"], 2);
    let mut moved = old.clone();
    moved["spec"]["serviceName"] = json!("other");
    assert_eq!(
        update(kind, &mut moved, &old),
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
         'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
         forbidden"
    );
}

#[test]
fn what_is_wrong_with_a_stateful_set() {
    let kind = strategy("apps", "StatefulSet");
    let mut set = stateful_set();
    set["spec"]["podManagementPolicy"] = json!("Chaos");
    set["spec"]["replicas"] = json!(-1);
    set["spec"]["volumeClaimTemplates"] = json!([]);
    set["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    assert_eq!(
        create(kind, &mut set),
        "spec.podManagementPolicy: Invalid value: \"Chaos\": must be 'OrderedReady' or 'Parallel'; spec.replicas: \
         Invalid value: -1: must be greater than or equal to 0; \
         spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\"; \
         spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""
    );
}

#[test]
fn a_daemon_set() {
    let kind = strategy("apps", "DaemonSet");
    let mut spec = spec();
    spec["template"]["spec"]["volumes"] = json!([{"name": "data", "hostPath": {"path": "/data"}}]);
    spec["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    let mut set = named(kind, "agent", json!({"spec": spec}));
    assert_eq!(create(kind, &mut set), "");
    assert_eq!(
        set["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
    );
    assert_eq!(set["spec"]["revisionHistoryLimit"], 10);
    set["status"] = json!({"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1});
    assert_eq!(
        row(kind, &set),
        json!([
            "agent",
            3,
            2,
            1,
            0,
            0,
            "disk=ssd",
            "5m",
            "db",
            "mongo:3.3",
            "app=db"
        ])
    );

    let mut wrong = set.clone();
    wrong["spec"]["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": "150%", "maxSurge": 1});
    assert_eq!(
        update(kind, &mut wrong, &set),
        "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"150%\": must not be greater than 100%; \
         spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"
    );
}

#[test]
fn controller_revisions_never_change() {
    let kind = strategy("apps", "ControllerRevision");
    let mut old = named(kind, "db-1", json!({"revision": 1, "data": {"spec": {}}}));
    old["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "1", "controller": true,
    }]);
    assert_eq!(create(kind, &mut old), "");
    assert_eq!(row(kind, &old), json!(["db-1", "statefulset.apps/db", 1, "5m"]));
    let mut new = old.clone();
    new["revision"] = json!(2);
    assert_eq!(update(kind, &mut new, &old), "");
    new["data"] = json!({"spec": null, "x": 1});
    assert_eq!(
        update(kind, &mut new, &old),
        "data: Invalid value: {\"spec\":null,\"x\":1}: field is immutable"
    );
    assert_eq!(
        wrong(kind, json!({"revision": -1})),
        "revision: Invalid value: -1: must be greater than or equal to 0; data: Required value: data is mandatory"
    );
}
