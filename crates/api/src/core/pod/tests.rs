//! Pods in, defaults and tables out.

use super::STRATEGY;
use crate::strategy::Strategy;
use jiff::Timestamp;
use serde_json::{Value, json};

fn cells(status: Value) -> Vec<Value> {
    let pod = json!({
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "nodeName": "n",
            "initContainers": [{"name": "i0"}, {"name": "i1"}],
            "containers": [{"name": "db"}, {"name": "api"}],
        },
        "status": status,
    });
    let now: Timestamp = "2026-01-01T00:04:04Z".parse().expect("a time");
    (STRATEGY.table().cells)(&pod, now)
}

fn status_cell(status: Value) -> String {
    cells(status)[2].as_str().expect("a text").to_owned()
}

#[test]
fn a_running_pod() {
    let running = |name: &str| {
        json!({
            "name": name, "ready": true, "restartCount": 1,
            "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:03:52Z", "exitCode": 1}},
        })
    };
    let row = cells(json!({
        "phase": "Running",
        "podIPs": [{"ip": "10.244.0.3"}],
        "conditions": [{"type": "Initialized", "status": "True"}],
        "containerStatuses": [running("db"), running("api")],
    }));
    let expected = json!([
        "p",
        "2/2",
        "Running",
        "2 (12s ago)",
        "4m4s",
        "10.244.0.3",
        "n",
        "<none>",
        "<none>"
    ]);
    assert_eq!(Value::Array(row), expected);
}

#[test]
fn what_the_status_column_says() {
    let waiting = |reason: &str| json!({"name": "db", "state": {"waiting": {"reason": reason}}});
    let ended = |code: i64, reason: &str| json!({"name": "api", "state": {"terminated": {"exitCode": code, "reason": reason}}});
    let running = json!({"name": "db", "ready": true, "state": {"running": {}}});
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let cases = [
        (json!({"phase": "Pending"}), "Pending"),
        (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
        (
            json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}),
            "CrashLoopBackOff",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i0", "state": {"running": {}}}]}),
            "Init:0/2",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i0", "state": {"terminated": {"exitCode": 0}}},
                {"name": "i1", "state": {"waiting": {"reason": "ImagePullBackOff"}}},
            ]}),
            "Init:ImagePullBackOff",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i0", "state": {"terminated": {"exitCode": 3}}},
            ]}),
            "Init:ExitCode:3",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}),
            "Completed",
        ),
        (
            json!({"phase": "Running", "conditions": ready, "containerStatuses": [ended(0, "Completed"), running]}),
            "Running",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [ended(0, "Completed"), running]}),
            "NotReady",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [ended(0, "Completed"), ended(1, "Error")]}),
            "Error",
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "SchedulingGated",
        ),
    ];
    for (status, text) in cases {
        assert_eq!(status_cell(status.clone()), text, "{status}");
    }
}

#[test]
fn defaults_of_the_tutorials_pod() {
    let mut pod = json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{
            "name": "api",
            "image": "vfarcic/go-demo-2",
            "ports": [{"containerPort": 8080}],
            "livenessProbe": {"httpGet": {"port": 8080}},
            "resources": {"limits": {"cpu": "1000m", "memory": 1024}},
        }]},
    });
    STRATEGY.default(&mut pod);
    let expected = json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "containers": [{
                "name": "api",
                "image": "vfarcic/go-demo-2",
                "imagePullPolicy": "Always",
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "livenessProbe": {
                    "httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                },
                "resources": {
                    "limits": {"cpu": "1", "memory": "1024"},
                    "requests": {"cpu": "1", "memory": "1024"},
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        },
    });
    assert_eq!(pod, expected);
    let once = pod.clone();
    STRATEGY.default(&mut pod);
    assert_eq!(pod, once, "defaulting twice changes nothing");

    STRATEGY.prepare_for_create(&mut pod);
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "Guaranteed"})
    );
    assert_eq!(pod["metadata"]["generation"], 1);
}

#[test]
fn pods_that_do_not_run_go_at_once() {
    let mut pod = json!({"spec": {"terminationGracePeriodSeconds": 30}});
    assert_eq!(STRATEGY.grace_period(&pod, None), Some(0));
    pod["spec"]["nodeName"] = json!("n");
    assert_eq!(STRATEGY.grace_period(&pod, None), Some(30));
    assert_eq!(STRATEGY.grace_period(&pod, Some(5)), Some(5));
    assert_eq!(STRATEGY.grace_period(&pod, Some(-1)), Some(1));
    pod["status"]["phase"] = json!("Succeeded");
    assert_eq!(STRATEGY.grace_period(&pod, None), Some(0));
}
