//! Pods in, defaults and tables out.

use super::STRATEGY;
use crate::strategy::Strategy;
use crate::tests::texts;
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

/// A valid pod, defaulted, after some changes to its spec.
fn pod(change: impl Fn(&mut Value)) -> Value {
    let mut pod = json!({
        "metadata": {"name": "p", "namespace": "default", "resourceVersion": "1"},
        "spec": {"containers": [{"name": "c", "image": "busybox:1"}]},
    });
    change(&mut pod["spec"]);
    STRATEGY.default(&mut pod);
    pod
}

#[test]
fn what_is_wrong_with_a_pod() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 16] = [
        (|_| {}, ""),
        (
            |spec| spec["containers"] = json!([]),
            "spec.containers: Required value",
        ),
        (
            |spec| spec["containers"][0]["name"] = json!("Not_A_Label"),
            "spec.containers[0].name: Invalid value: \"Not_A_Label\": a lowercase RFC 1123 label must consist of \
             lower case alphanumeric characters or '-', and must start and end with an alphanumeric character \
             (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ),
        (
            |spec| spec["containers"] = json!([{"name": "c", "image": "x"}, {"name": "c", "image": "x"}]),
            "spec.containers[1].name: Duplicate value: \"c\"",
        ),
        (
            |spec| spec["restartPolicy"] = json!("Sometimes"),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \
             \"OnFailure\"",
        ),
        (
            |spec| spec["containers"][0]["imagePullPolicy"] = json!("Maybe"),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \
             \"IfNotPresent\", \"Never\"",
        ),
        (
            |spec| spec["containers"][0]["ports"] = json!([{"containerPort": 70000}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, \
             inclusive",
        ),
        (
            |spec| spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            |spec| spec["containers"][0]["livenessProbe"] = json!({}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            |spec| {
                spec["containers"][0]["resources"] =
                    json!({"requests": {"cpu": "2"}, "limits": {"cpu": "500m"}});
            },
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit \
             of 500m",
        ),
        (
            |spec| spec["containers"][0]["resources"] = json!({"limits": {"cpus": "2"}}),
            "spec.containers[0].resources.limits[cpus]: Invalid value: \"cpus\": must be a standard resource type \
             or fully qualified; spec.containers[0].resources.limits[cpus]: Invalid value: \"cpus\": must be a \
             standard resource for containers; spec.containers[0].resources.requests[cpus]: Invalid value: \
             \"cpus\": must be a standard resource type or fully qualified; \
             spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource \
             for containers",
        ),
        (
            |spec| spec["volumes"] = json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            |spec| spec["containers"][0]["env"] = json!([{"name": "A", "valueFrom": {}}]),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, \
             `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        ),
        (
            |spec| {
                spec["containers"][0]["env"] =
                    json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]);
            },
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": \
             supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \
             \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \
             \"status.podIPs\"",
        ),
        (
            |spec| {
                spec["initContainers"] =
                    json!([{"name": "i", "image": "x", "livenessProbe": {"exec": {"command": ["x"]}}}])
            },
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without \
             restartPolicy=Always",
        ),
        (
            |spec| spec["tolerations"] = json!([{"operator": "Equal", "tolerationSeconds": 3}]),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, \
             which means \"match all values and all keys\"; spec.tolerations[0].effect: Invalid value: \"\": \
             effect must be 'NoExecute' when `tolerationSeconds` is set",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(texts(&STRATEGY.validate(&pod(change))), expected);
    }
}

#[test]
fn what_an_update_of_a_pod_may_change() {
    let old = pod(|_| {});
    let image = pod(|spec| spec["containers"][0]["image"] = json!("busybox:2"));
    assert_eq!(texts(&STRATEGY.validate_update(&image, &old)), "");

    let command = pod(|spec| spec["containers"][0]["command"] = json!(["sh"]));
    assert_eq!(
        texts(&STRATEGY.validate_update(&command, &old)),
        "spec: Forbidden: pod updates may not change fields other than \
         `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` \
         (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if \
         it was previously negative)\n+ containers[0].command: [\"sh\"]"
    );

    let more = pod(|spec| {
        spec["containers"] = json!([{"name": "c", "image": "busybox:1"}, {"name": "d", "image": "x"}]);
    });
    assert_eq!(
        texts(&STRATEGY.validate_update(&more, &old)),
        "spec.containers: Forbidden: pod updates may not add or remove containers"
    );
}

#[test]
fn the_generation_counts_changes_of_the_spec() {
    let old = {
        let mut old = pod(|_| {});
        STRATEGY.prepare_for_create(&mut old);
        old
    };
    let mut same = old.clone();
    same["metadata"]["labels"] = json!({"a": "b"});
    same["status"] = json!({"phase": "Running"});
    STRATEGY.prepare_for_update(&mut same, &old);
    assert_eq!(same["metadata"]["generation"], 1);
    assert_eq!(
        same["status"]["phase"], "Pending",
        "updates do not touch the status"
    );

    let mut other = old.clone();
    other["spec"]["containers"][0]["image"] = json!("busybox:2");
    STRATEGY.prepare_for_update(&mut other, &old);
    assert_eq!(other["metadata"]["generation"], 2);

    let mut status = other.clone();
    status["status"] = json!({"phase": "Running"});
    STRATEGY.prepare_for_status_update(&mut status, &old);
    assert_eq!(status["spec"], old["spec"], "status updates touch nothing else");
    assert_eq!(
        status["status"],
        json!({"phase": "Running", "qosClass": "BestEffort"})
    );
    assert_eq!(texts(&STRATEGY.validate_status_update(&status, &old)), "");
}
