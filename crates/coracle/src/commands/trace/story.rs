//! From what the parts remember to the story of a Service's last change.

use super::changes::{Change, of_pod, of_service, of_slice};
use super::step::{Part, Step};
use coracle_meta::Selector;
use coracle_meta::object::ObjectExt;
use coracle_meta::well_known_labels::SERVICE_NAME;
use coracle_node::cluster_dns::Names;
use coracle_node::service_proxy::LastChange;
use jiff::Timestamp;
use serde_json::Value;

/// What the parts remember of a Service.
#[derive(Debug)]
pub struct Memory<'a> {
    /// The Service as it is.
    pub service: &'a Value,
    /// The node that tells.
    pub node: &'a str,
    /// Writes of Services, oldest first; those of others are left out here.
    pub services: &'a [Change],
    /// Writes of EndpointSlices, oldest first.
    pub slices: &'a [Change],
    /// Writes of Pods, oldest first.
    pub pods: &'a [Change],
    /// What the node's proxy did last.
    pub proxy: Option<LastChange>,
    /// What the cluster DNS did.
    pub names: Option<Names>,
}

/// The steps of the last change but the first packet.
pub fn tell(memory: &Memory<'_>) -> Vec<Step> {
    let written = writes(memory);
    let begin = written.first().map(|step| step.at);
    // What happened before belongs to an earlier change. Without a memory of writes, everything is told.
    let later = |at: &Timestamp| begin.is_none_or(|begin| *at >= begin);
    let mut steps = written;
    let mut add = |part, at: Timestamp, text: String| {
        steps.push(Step {
            at,
            part,
            node: Some(memory.node.to_owned()),
            text,
            revision: None,
        });
    };
    if let Some(last) = memory.proxy.filter(|last| later(&last.seen)) {
        add(Part::ServiceProxy, last.seen, "the change is seen".to_owned());
        if let Some(committed) = last.committed {
            let text = match last.operations {
                0 => "what the kernel has is right already".to_owned(),
                n => format!(
                    "{n} changes of map elements in one transaction of {} µs",
                    microseconds(last.began, committed)
                ),
            };
            add(Part::Kernel, committed, text);
        }
    }
    if let Some(names) = memory.names {
        // Only the names of a headless Service depend on its endpoints.
        let headless = memory.service.str_at(&["spec", "clusterIP"]) == Some("None");
        let endpoints = names.endpoints.filter(|_| headless);
        let at = endpoints.map_or(names.service, |endpoints| endpoints.max(names.service));
        if later(&at) {
            add(Part::ClusterDns, at, "the names are answered".to_owned());
        }
    }
    steps
}

/// What began the change, and the EndpointSlice that followed from it.
fn writes(memory: &Memory<'_>) -> Vec<Step> {
    let (namespace, name) = (memory.service.namespace(), memory.service.name());
    let selector = Selector::from_json_set(&memory.service["spec"]["selector"]);
    let service = last(memory.services, |change| {
        let own = change.object().namespace() == namespace && change.object().name() == name;
        own.then(|| of_service(change)).flatten()
    });
    let slice = last(memory.slices, |change| {
        let object = change.object();
        let own = object.namespace() == namespace && object.label(SERVICE_NAME) == Some(name);
        own.then(|| of_slice(change)).flatten()
    });
    let before_slice = |revision: u64| slice.as_ref().is_none_or(|(_, slice)| revision < *slice);
    let pod = last(memory.pods, |change| {
        let own = change.object().namespace() == namespace && before_slice(change.revision);
        own.then(|| of_pod(change, &selector)).flatten()
    });
    let revision = |found: &Option<(Step, u64)>| found.as_ref().map(|(_, revision)| *revision);
    let steps = if revision(&service) > revision(&slice) {
        vec![service]
    } else if slice.is_some() {
        // The controller follows at once, so what came last before its write is what it followed.
        let trigger = if revision(&pod) > revision(&service) {
            pod
        } else {
            service
        };
        vec![trigger, slice]
    } else {
        Vec::new()
    };
    steps.into_iter().flatten().map(|(step, _)| step).collect()
}

/// The last write that means something.
fn last(changes: &[Change], say: impl Fn(&Change) -> Option<String>) -> Option<(Step, u64)> {
    changes.iter().rev().find_map(|change| {
        let text = say(change)?;
        let by = change.by();
        let text = if by.is_empty() {
            text
        } else {
            format!("{text}, by {by}")
        };
        let step = Step {
            at: change.at,
            part: Part::ApiServer,
            node: None,
            text,
            revision: Some(change.revision),
        };
        Some((step, change.revision))
    })
}

fn microseconds(from: Timestamp, to: Timestamp) -> i128 {
    to.duration_since(from).as_micros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(microseconds: i64) -> Timestamp {
        Timestamp::from_microsecond(microseconds).expect("in range")
    }

    fn change(revision: u64, before: Value, after: Value) -> Change {
        let object = |value: Value| Some(value).filter(|value| !value.is_null());
        Change {
            revision,
            at: at(i64::try_from(revision).expect("small") * 100),
            before: object(before),
            after: object(after),
        }
    }

    fn service(cluster_ip: &str) -> Value {
        json!({"metadata": {"namespace": "shop", "name": "web"},
               "spec": {"clusterIP": cluster_ip, "selector": {"app": "web"}}})
    }

    fn slice(ips: &[&str]) -> Value {
        let endpoints: Vec<Value> = ips
            .iter()
            .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
            .collect();
        json!({"metadata": {"namespace": "shop", "name": "web-x", "labels": {SERVICE_NAME: "web"}}, "endpoints": endpoints})
    }

    fn pod(name: &str, ready: &str) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name, "labels": {"app": "web"}},
               "status": {"conditions": [{"type": "Ready", "status": ready}]}})
    }

    fn proxy(seen: i64) -> Option<LastChange> {
        Some(LastChange {
            seen: at(seen),
            began: at(seen + 2),
            committed: Some(at(seen + 10)),
            operations: 3,
        })
    }

    fn told(memory: &Memory<'_>) -> Vec<(i64, Part, String)> {
        let mut steps = tell(memory);
        steps.sort();
        steps
            .into_iter()
            .map(|step| (step.at.as_microsecond(), step.part, step.text))
            .collect()
    }

    fn line(at: i64, part: Part, text: &str) -> (i64, Part, String) {
        (at, part, text.to_owned())
    }

    const COMMIT: &str = "3 changes of map elements in one transaction of 8 µs";

    #[test]
    fn a_pod_that_becomes_ready_is_followed_by_its_slice_and_the_kernel() {
        let now = service("10.96.0.7");
        let memory = Memory {
            service: &now,
            node: "node-1",
            services: &[change(1, json!(null), now.clone())],
            slices: &[
                change(2, json!(null), slice(&[])),
                change(5, slice(&[]), slice(&["10.244.0.5"])),
            ],
            pods: &[
                change(3, json!(null), pod("a", "False")),
                change(4, pod("a", "False"), pod("a", "True")),
                // After the slice: the controller has not followed yet, or there is nothing to follow.
                change(6, json!(null), pod("b", "False")),
            ],
            proxy: proxy(550),
            names: Some(Names {
                first: at(110),
                service: at(110),
                endpoints: Some(at(560)),
            }),
        };
        assert_eq!(
            told(&memory),
            [
                line(400, Part::ApiServer, "Pod a became ready"),
                line(
                    500,
                    Part::ApiServer,
                    "EndpointSlice web-x has 1 ready +10.244.0.5"
                ),
                line(550, Part::ServiceProxy, "the change is seen"),
                line(560, Part::Kernel, COMMIT),
            ]
        );
    }

    #[test]
    fn the_names_of_a_headless_service_follow_its_endpoints() {
        let now = service("None");
        let memory = Memory {
            service: &now,
            node: "node-1",
            services: &[change(1, json!(null), now.clone())],
            slices: &[change(2, json!(null), slice(&["10.244.0.5"]))],
            pods: &[],
            proxy: None,
            names: Some(Names {
                first: at(110),
                service: at(110),
                endpoints: Some(at(230)),
            }),
        };
        assert_eq!(
            told(&memory),
            [
                line(100, Part::ApiServer, "Service web created"),
                line(
                    200,
                    Part::ApiServer,
                    "EndpointSlice web-x has 1 ready +10.244.0.5"
                ),
                line(230, Part::ClusterDns, "the names are answered"),
            ]
        );
    }

    #[test]
    fn a_change_of_the_service_alone_begins_a_story_of_its_own() {
        let (before, mut now) = (service("10.96.0.7"), service("10.96.0.7"));
        now["spec"]["sessionAffinity"] = json!("ClientIP");
        let other = json!({"metadata": {"namespace": "shop", "name": "db"}, "spec": {}});
        let memory = Memory {
            service: &now,
            node: "node-1",
            services: &[change(3, before, now.clone()), change(9, json!(null), other)],
            slices: &[change(2, json!(null), slice(&["10.244.0.5"]))],
            pods: &[],
            proxy: proxy(310),
            names: Some(Names {
                first: at(110),
                service: at(320),
                endpoints: None,
            }),
        };
        assert_eq!(
            told(&memory),
            [
                line(300, Part::ApiServer, "Service web changed: spec.sessionAffinity"),
                line(310, Part::ServiceProxy, "the change is seen"),
                line(320, Part::Kernel, COMMIT),
                line(320, Part::ClusterDns, "the names are answered"),
            ]
        );
    }

    #[test]
    fn without_writes_that_are_remembered_the_rest_is_told() {
        let now = service("10.96.0.7");
        let memory = Memory {
            service: &now,
            node: "node-1",
            services: &[],
            slices: &[],
            pods: &[],
            proxy: proxy(310),
            names: None,
        };
        assert_eq!(told(&memory).len(), 2);
    }
}
