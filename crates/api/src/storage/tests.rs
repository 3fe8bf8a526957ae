//! Golden cases of volumes, claims and classes.

use crate::strategy::strategy;
use crate::tests::{create, named, row, update, wrong};
use serde_json::json;

#[test]
fn volumes() {
    let kind = strategy("", "PersistentVolume");
    let spec = json!({
        "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
        "hostPath": {"path": "/data"},
    });
    let mut volume = named(kind, "v1", json!({"spec": spec}));
    assert_eq!(create(kind, &mut volume), "");
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(volume["spec"]["volumeMode"], "Filesystem");
    assert_eq!(volume["status"], json!({"phase": "Pending"}));
    volume["spec"]["claimRef"] = json!({"namespace": "default", "name": "c"});
    volume["status"]["phase"] = json!("Bound");
    assert_eq!(
        row(kind, &volume),
        json!([
            "v1",
            "5Gi",
            "RWO",
            "Retain",
            "Bound",
            "default/c",
            "manual",
            "<unset>",
            "",
            "5m",
            "Filesystem"
        ])
    );
    assert_eq!(
        wrong(kind, json!({"spec": {"capacity": {"cpu": "1"}}})),
        "spec.accessModes: Required value; spec.capacity: Unsupported value: {\"cpu\":\"1\"}: supported values: \
         \"storage\"; spec: Required value: must specify a volume type"
    );
    let mut moved = volume.clone();
    moved["spec"]["hostPath"]["path"] = json!("/other");
    let errors = update(kind, &mut moved, &volume);
    let expected =
        "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n";
    assert!(errors.starts_with(expected), "{errors}");
}

#[test]
fn claims() {
    let kind = strategy("", "PersistentVolumeClaim");
    let spec = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
        "resources": {"requests": {"storage": "4Gi"}},
    });
    let mut claim = named(kind, "jenkins", json!({"spec": spec}));
    assert_eq!(create(kind, &mut claim), "");
    assert_eq!(
        row(kind, &claim),
        json!([
            "jenkins",
            "Pending",
            "",
            "",
            "",
            "standard",
            "<unset>",
            "5m",
            "Filesystem"
        ])
    );
    let mut bound = claim.clone();
    bound["spec"]["volumeName"] = json!("v1");
    assert_eq!(update(kind, &mut bound, &claim), "", "the controller binds it");
    bound["status"] =
        json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"}});
    assert_eq!(
        row(kind, &bound),
        json!([
            "jenkins",
            "Bound",
            "v1",
            "5Gi",
            "RWO",
            "standard",
            "<unset>",
            "5m",
            "Filesystem"
        ])
    );
    let mut smaller = bound.clone();
    smaller["spec"]["resources"]["requests"]["storage"] = json!("1Gi");
    assert_eq!(
        update(kind, &mut smaller, &bound),
        "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
    );
    let mut rebound = bound.clone();
    rebound["spec"]["volumeName"] = json!("v2");
    let errors = update(kind, &mut rebound, &bound);
    let expected = "spec: Forbidden: spec is immutable after creation except resources.requests and \
                    volumeAttributesClassName for bound claims\n";
    assert!(errors.starts_with(expected), "{errors}");
    assert_eq!(
        wrong(kind, json!({"spec": {"accessModes": ["RWO"]}})),
        "spec.accessModes: Unsupported value: \"RWO\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
         \"ReadWriteOnce\", \"ReadWriteOncePod\"; spec.resources[storage]: Required value"
    );
}

#[test]
fn classes() {
    let kind = strategy("storage.k8s.io", "StorageClass");
    let mut class = named(kind, "fast", json!({"provisioner": "example.com/disk"}));
    class["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    assert_eq!(create(kind, &mut class), "");
    assert_eq!(class["reclaimPolicy"], "Delete");
    assert_eq!(class["volumeBindingMode"], "Immediate");
    assert_eq!(
        row(kind, &class),
        json!([
            "fast (default)",
            "example.com/disk",
            "Delete",
            "Immediate",
            false,
            "5m"
        ])
    );
    let mut other = class.clone();
    other["provisioner"] = json!("example.com/other");
    other["reclaimPolicy"] = json!("Retain");
    assert_eq!(
        update(kind, &mut other, &class),
        "provisioner: Invalid value: \"example.com/other\": field is immutable; reclaimPolicy: Invalid value: \
         \"Retain\": field is immutable"
    );
}
