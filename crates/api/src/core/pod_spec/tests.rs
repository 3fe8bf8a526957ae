//! The defaults of upstream's `TestPodDefaults`: each is there when the object around it is.

use super::default_pod_spec;
use crate::strategy::strategy;
use serde_json::{Value, json};

const CONTAINER: &str = r#"
    /terminationMessagePath "/dev/termination-log"
    /terminationMessagePolicy "File"
    /imagePullPolicy "IfNotPresent"
    /ports/0/protocol "TCP"
    /env/0/valueFrom/fieldRef/apiVersion "v1"
    /env/0/valueFrom/fileKeyRef/optional false
    /lifecycle/postStart/httpGet/path "/"
    /lifecycle/preStop/httpGet/scheme "HTTP"
    /livenessProbe/failureThreshold 3
    /livenessProbe/periodSeconds 10
    /livenessProbe/successThreshold 1
    /livenessProbe/timeoutSeconds 1
    /readinessProbe/httpGet/path "/"
    /readinessProbe/httpGet/scheme "HTTP"
    /startupProbe/grpc/service ""
"#;

const SPEC: &str = r#"
    /dnsPolicy "ClusterFirst"
    /restartPolicy "Always"
    /schedulerName "default-scheduler"
    /securityContext {}
    /terminationGracePeriodSeconds 30
    /volumes/0/emptyDir {}
    /volumes/0/azureDisk/cachingMode "ReadWrite"
    /volumes/0/azureDisk/fsType "ext4"
    /volumes/0/azureDisk/kind "Shared"
    /volumes/0/azureDisk/readOnly false
    /volumes/0/configMap/defaultMode 420
    /volumes/0/secret/defaultMode 420
    /volumes/0/downwardAPI/defaultMode 420
    /volumes/0/downwardAPI/items/0/fieldRef/apiVersion "v1"
    /volumes/0/projected/defaultMode 420
    /volumes/0/projected/sources/0/downwardAPI/items/0/fieldRef/apiVersion "v1"
    /volumes/0/projected/sources/0/serviceAccountToken/expirationSeconds 3600
    /volumes/0/ephemeral/volumeClaimTemplate/spec/volumeMode "Filesystem"
    /volumes/0/hostPath/type ""
    /volumes/0/iscsi/iscsiInterface "default"
    /volumes/0/image/pullPolicy "IfNotPresent"
    /volumes/0/rbd/keyring "/etc/ceph/keyring"
    /volumes/0/rbd/pool "rbd"
    /volumes/0/rbd/user "admin"
    /volumes/0/scaleIO/fsType "xfs"
    /volumes/0/scaleIO/storageMode "ThinProvisioned"
"#;

/// The value with everything that the path leads through, but not what it leads to.
fn around(path: &str) -> Value {
    let mut parts: Vec<&str> = path.split('/').skip(1).collect();
    parts.pop();
    parts.into_iter().rev().fold(json!({}), |inner, part| match part {
        "0" => json!([inner]),
        name => json!({name: inner}),
    })
}

fn check(prefix: &str, defaults: &str) {
    for line in defaults.lines().filter(|line| !line.trim().is_empty()) {
        let (path, value) = line.trim().split_once(' ').expect("a path and a value");
        let path = format!("{prefix}{path}");
        let value: Value = serde_json::from_str(value).expect("JSON");
        let mut spec = around(&path);
        default_pod_spec(&mut spec);
        assert_eq!(spec.pointer(&path), Some(&value), "{path}");
    }
}

#[test]
fn defaults() {
    check("", SPEC);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        check(&format!("/{list}/0"), CONTAINER);
    }
}

#[test]
fn ports_of_the_host() {
    let spec = json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80}]}]});
    let mut pod = json!({"spec": spec});
    strategy("", "Pod").default(&mut pod);
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
    let mut template = spec;
    default_pod_spec(&mut template);
    assert!(template["containers"][0]["ports"][0].get("hostPort").is_none());
}
