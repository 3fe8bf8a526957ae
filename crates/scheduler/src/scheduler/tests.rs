//! The machine: what it does with changes, answers and time.

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn gvr(plural: &str) -> GroupVersionResource {
    GroupVersionResource::new("", "v1", plural)
}

fn see(scheduler: &mut Scheduler, plural: &str, object: &Value) {
    let bytes = object.to_string();
    scheduler
        .observe(&gvr(plural), Observation::Applied(bytes.as_bytes()), now())
        .unwrap();
}

fn gone(scheduler: &mut Scheduler, plural: &str, key: &Key) {
    scheduler
        .observe(&gvr(plural), Observation::Deleted(key), now())
        .unwrap();
}

fn node(name: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
           "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}}})
}

fn pod(name: &str, cpu: &str, priority: i32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}")},
        "spec": {"priority": priority,
                 "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    })
}

/// `pod -> node`, `pod: message` or `delete pod` for each step.
fn summary(steps: &[Step]) -> Vec<String> {
    steps
        .iter()
        .map(|step| match &step.action {
            Action::CreateSubresource { key, object, .. } => {
                format!("{} -> {}", key.name, object["target"]["name"].as_str().unwrap())
            }
            Action::Patch { key, body, .. } => {
                let condition = &body["status"]["conditions"][0];
                format!("{}: {}", key.name, condition["message"].as_str().unwrap())
            }
            Action::Delete { key, .. } => format!("delete {}", key.name),
            Action::Event { reason, .. } => format!("event {reason}"),
            other => panic!("unexpected {other:?}"),
        })
        .collect()
}

#[test]
fn a_pod_is_bound_and_announced() {
    let mut scheduler = Scheduler::new();
    see(&mut scheduler, "nodes", &node("n1", "2"));
    see(&mut scheduler, "pods", &pod("a", "1", 0));
    let steps = scheduler.step(now());
    assert_eq!(summary(&steps), ["a -> n1"]);
    let Action::CreateSubresource {
        subresource, object, ..
    } = &steps[0].action
    else {
        panic!("a binding");
    };
    assert_eq!(*subresource, "binding");
    assert_eq!(object["metadata"]["uid"], "uid-a");
    let Action::Event { reason, message, .. } = &steps[0].events[0] else {
        panic!("an event");
    };
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("Scheduled", "Successfully assigned shop/a to n1")
    );
    assert!(scheduler.step(now()).is_empty(), "once");
}

#[test]
fn a_place_is_taken_before_the_binding_is_answered() {
    let mut scheduler = Scheduler::new();
    see(&mut scheduler, "nodes", &node("n1", "1"));
    see(&mut scheduler, "pods", &pod("a", "1", 0));
    see(&mut scheduler, "pods", &pod("b", "1", 0));
    let steps = scheduler.step(now());
    assert_eq!(
        summary(&steps),
        [
            "a -> n1",
            "b: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
             1 No preemption victims found for incoming pod.",
        ]
    );
    // A refused binding gives the place to the one that waits, and the refused one rests.
    let refusal = Status::internal("storage is down");
    scheduler.finished(steps[0].ticket, &Err(refusal), now());
    let steps = scheduler.step(now());
    assert_eq!(summary(&steps)[..2], ["event FailedScheduling", "b -> n1"]);
    assert_eq!(
        scheduler.wake_at(),
        Some(now() + jiff::SignedDuration::from_secs(1))
    );
    let later = scheduler.step(now() + jiff::SignedDuration::from_secs(1));
    assert!(summary(&later)[0].starts_with("a: 0/1 nodes are available"));
}

#[test]
fn a_waiting_pod_is_tried_when_something_helps_and_only_then() {
    let mut scheduler = Scheduler::new();
    see(&mut scheduler, "pods", &pod("a", "2", 0));
    let steps = scheduler.step(now());
    assert_eq!(summary(&steps), ["a: no nodes available to schedule pods"]);
    see(&mut scheduler, "nodes", &node("n1", "1"));
    let steps = scheduler.step(now());
    assert_eq!(
        summary(&steps),
        [
            "a: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
          1 Preemption is not helpful for scheduling."
        ]
    );
    let mut heartbeat = node("n1", "1");
    heartbeat["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    see(&mut scheduler, "nodes", &heartbeat);
    see(
        &mut scheduler,
        "namespaces",
        &json!({"metadata": {"name": "shop"}}),
    );
    assert!(scheduler.step(now()).is_empty(), "a heartbeat does not help");
    see(&mut scheduler, "nodes", &node("n1", "2"));
    assert_eq!(summary(&scheduler.step(now())), ["a -> n1"]);
}

#[test]
fn room_that_becomes_free_is_used() {
    let mut scheduler = Scheduler::new();
    see(&mut scheduler, "nodes", &node("n1", "1"));
    let mut running = pod("old", "1", 0);
    running["spec"]["nodeName"] = json!("n1");
    see(&mut scheduler, "pods", &running);
    see(&mut scheduler, "pods", &pod("new", "1", 0));
    scheduler.step(now());
    running["status"] = json!({"phase": "Succeeded"});
    see(&mut scheduler, "pods", &running);
    assert_eq!(summary(&scheduler.step(now())), ["new -> n1"]);
}

#[test]
fn higher_priorities_go_first_and_equals_by_age() {
    let mut scheduler = Scheduler::new();
    see(&mut scheduler, "nodes", &node("n1", "8"));
    for (name, priority) in [("b", 0), ("a", 0), ("urgent", 100)] {
        see(&mut scheduler, "pods", &pod(name, "1", priority));
    }
    assert_eq!(
        summary(&scheduler.step(now())),
        ["urgent -> n1", "b -> n1", "a -> n1"]
    );
}

#[test]
fn important_pods_displace_others_and_keep_their_place() {
    let mut scheduler = Scheduler::new();
    see(&mut scheduler, "nodes", &node("n1", "2"));
    for (name, priority) in [("small", 1), ("smaller", 0)] {
        let mut placed = pod(name, "1", priority);
        placed["spec"]["nodeName"] = json!("n1");
        see(&mut scheduler, "pods", &placed);
    }
    see(&mut scheduler, "pods", &pod("urgent", "1", 100));
    let steps = scheduler.step(now());
    assert_eq!(
        summary(&steps),
        [
            "delete smaller",
            "urgent: 0/1 nodes are available: 1 Insufficient cpu."
        ]
    );
    let Action::Patch { body, .. } = &steps[1].action else {
        panic!("a status");
    };
    assert_eq!(body["status"]["nominatedNodeName"], "n1");
    // Another pod does not slip in when the room becomes free.
    see(&mut scheduler, "pods", &pod("cheeky", "1", 50));
    gone(&mut scheduler, "pods", &Key::new("shop", "smaller"));
    assert_eq!(summary(&scheduler.step(now()))[0], "urgent -> n1");
}

#[test]
fn some_pods_are_none_of_its_business() {
    let mut scheduler = Scheduler::new();
    see(&mut scheduler, "nodes", &node("n1", "8"));
    let mut other = pod("other", "1", 0);
    other["spec"]["schedulerName"] = json!("mine");
    let mut gated = pod("gated", "1", 0);
    gated["spec"]["schedulingGates"] = json!([{"name": "wait"}]);
    let mut going = pod("going", "1", 0);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    for pod in [&other, &gated, &going] {
        see(&mut scheduler, "pods", pod);
    }
    assert!(scheduler.step(now()).is_empty());
    gated["spec"]["schedulingGates"] = json!([]);
    see(&mut scheduler, "pods", &gated);
    assert_eq!(summary(&scheduler.step(now())), ["gated -> n1"]);
}

#[test]
fn the_same_complaint_is_an_event_and_no_status() {
    let mut scheduler = Scheduler::new();
    let mut waiting = pod("a", "1", 0);
    see(&mut scheduler, "pods", &waiting);
    let steps = scheduler.step(now());
    let Action::Patch { body, .. } = &steps[0].action else {
        panic!("a status");
    };
    assert_eq!(
        body["status"]["conditions"][0]["lastTransitionTime"],
        "2026-01-01T00:00:00Z"
    );
    waiting["status"] = body["status"].clone();
    see(&mut scheduler, "pods", &waiting);
    assert!(scheduler.step(now()).is_empty(), "its own report wakes nobody");
    let later = now() + jiff::SignedDuration::from_mins(5);
    assert_eq!(summary(&scheduler.step(later)), ["event FailedScheduling"]);
}

#[test]
fn a_successor_of_the_same_name_is_another_pod() {
    let mut scheduler = Scheduler::new();
    see(&mut scheduler, "nodes", &node("n1", "1"));
    see(&mut scheduler, "pods", &pod("a", "1", 0));
    let first = scheduler.step(now());
    let mut successor = pod("a", "1", 0);
    successor["metadata"]["uid"] = json!("uid-2");
    see(&mut scheduler, "pods", &successor);
    assert_eq!(summary(&scheduler.step(now())), ["a -> n1"]);
    let conflict = Status::conflict(&coracle_meta::GroupResource::new("", "pods"), "a", "uid");
    scheduler.finished(first[0].ticket, &Err(conflict), now());
    assert!(
        scheduler.step(now()).is_empty(),
        "the late answer is about the first one"
    );
}
