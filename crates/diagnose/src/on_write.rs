//! What is known at the moment in which somebody writes a Service: his terminal is where it helps most.
//!
//! Services come before their Pods as often as after them. So nothing is said of a selector that finds nothing, but if
//! it is one slip away from Pods that nobody serves; and nothing of ports before there are Pods.

use crate::diagnosis::{Code, Walk};
use crate::evidence::Evidence;
use crate::object;
use crate::pod;
use crate::selector::{Labels, terms};
use crate::subject::{Port, Subject, Target, count, some};
use crate::target_port;
use k8s_openapi::api::core::v1::{Pod, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What to tell who writes a Service, by it and (some of) the Pods that its selector finds. Nothing to most.
pub fn on_write(service: &Service, pods: Vec<Arc<Pod>>) -> Vec<String> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut evidence = Evidence::new(text(&service.metadata.namespace), text(&service.metadata.name));
    evidence.pods = pods;
    let subject = Subject::new(&evidence, service, spec);
    if subject.is_external_name() {
        let verdict = object::address_as_name(&subject);
        return verdict
            .into_iter()
            .map(|verdict| format!("spec.externalName: {}; {}", verdict.message, verdict.fix))
            .collect();
    }
    if subject.pods.is_empty() {
        return Vec::new();
    }
    subject
        .ports
        .iter()
        .filter_map(|port| unknown_name(&subject, port).or_else(|| undeclared(&subject, port)))
        .collect()
}

/// None of the Pods has a port of this name.
fn unknown_name(subject: &Subject<'_>, port: &Port<'_>) -> Option<String> {
    if subject
        .pods
        .iter()
        .any(|pod| pod::target_port(pod, port).is_some())
    {
        return None;
    }
    let mut walk = Walk::default();
    target_port::look_at(subject, port, &mut walk);
    let verdict = walk.verdict()?;
    matches!(verdict.code, Code::TargetPortUnknown | Code::WrongProtocol)
        .then(|| format!("spec.ports[{}].targetPort: {}", port.index, verdict.message))
}

/// Container ports are for information: a program may listen where none is declared. So this is a hint, and given only
/// where the number was not chosen (it is the Service's own) or is a slip away from one that is declared.
fn undeclared(subject: &Subject<'_>, port: &Port<'_>) -> Option<String> {
    let Target::Number(number) = port.target else {
        return None;
    };
    let mut declared = BTreeSet::new();
    for pod in &subject.pods {
        let numbers: BTreeSet<u16> = pod::container_ports(pod)
            .filter(|p| crate::Protocol::parse(p.protocol.as_deref()) == port.protocol)
            .filter_map(|p| u16::try_from(p.container_port).ok())
            .collect();
        if numbers.is_empty() || numbers.contains(&number) {
            return None;
        }
        declared.extend(numbers);
    }
    let near = |other: &u16| strsim::osa_distance(&other.to_string(), &number.to_string()) == 1;
    if number != port.port && !declared.iter().any(near) {
        return None;
    }
    Some(format!(
        "spec.ports[{}].targetPort: no container of the Service's Pods declares port {number}/{}, they declare {}; a \
         hint only: it works if a program listens there",
        port.index,
        port.protocol,
        some(declared)
    ))
}

/// Pods that a selector, which finds none, would find with one letter changed.
pub struct Slips<'a> {
    selector: &'a Labels,
    /// How many Pods have the label that was meant.
    meant: BTreeMap<(String, String), usize>,
}

impl<'a> Slips<'a> {
    /// Has seen no Pod yet.
    pub fn of(selector: &'a Labels) -> Self {
        Self {
            selector,
            meant: BTreeMap::new(),
        }
    }

    /// Takes a look at the labels of a Pod.
    pub fn see(&mut self, labels: &[(Box<str>, Box<str>)]) {
        let Some((key, value)) = slipped_term(self.selector, labels) else {
            return;
        };
        let meant = self.meant.entry((key.to_owned(), value.to_owned()));
        *meant.or_default() += 1;
    }

    /// What to tell who writes the selector.
    pub fn warning(self) -> Option<String> {
        let (term, pods) = self.meant.into_iter().max_by_key(|(_, pods)| *pods)?;
        let have = if pods == 1 { "has" } else { "have" };
        Some(format!(
            "spec.selector: {} matches no Pod; {} {have} {}",
            terms(self.selector),
            count(pods, "Pod"),
            terms(&[term].into())
        ))
    }
}

/// The one label that differs from what the selector asks for, if it does so by one letter.
fn slipped_term<'a>(selector: &Labels, labels: &'a [(Box<str>, Box<str>)]) -> Option<(&'a str, &'a str)> {
    let has = |key: &str, value: &str| labels.iter().any(|(k, v)| **k == *key && **v == *value);
    let mut missing = selector.iter().filter(|(key, value)| !has(key, value));
    let (key, value) = missing.next()?;
    if missing.next().is_some() {
        return None;
    }
    let meant = labels.iter().find(|(k, v)| {
        let slipped_value = **k == **key && is_slip(value, v);
        slipped_value || (**v == **value && is_slip(key, k) && !selector.contains_key(&**k))
    });
    meant.map(|(key, value)| (&**key, &**value))
}

/// One letter inserted, deleted or swapped, in longer words also changed: `api` and `app` are two words. Digits are
/// counted and no slips: `web-1` and `web-2`.
fn is_slip(wanted: &str, other: &str) -> bool {
    const SHORTEST: usize = 3;
    const LONG: usize = 6;
    let letters = |text: &str| -> String { text.chars().filter(|c| !c.is_ascii_digit()).collect() };
    let sorted = |text: &str| -> Vec<char> {
        let mut all: Vec<char> = text.chars().collect();
        all.sort_unstable();
        all
    };
    wanted.len().min(other.len()) >= SHORTEST
        && wanted.len().abs_diff(other.len()) <= 4
        && strsim::osa_distance(wanted, other) == 1
        && letters(wanted) != letters(other)
        && (wanted.len() >= LONG || wanted.len() != other.len() || sorted(wanted) == sorted(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        let object = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    fn pod(ports: Value) -> Arc<Pod> {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "web-a", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "ports": ports}]},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_selector_is_held_against_similar_labels_only() {
        let labels: [(Box<str>, Box<str>); 2] = [
            ("app".into(), "api".into()),
            ("pod-template-hash".into(), "6d4cf56db6".into()),
        ];
        let said = |selector: &Value| {
            let selector = serde_json::from_value(selector.clone()).unwrap();
            let mut slips = Slips::of(&selector);
            (0..3).for_each(|_| slips.see(&labels));
            slips.warning().unwrap_or_default()
        };
        let cases = [
            (
                json!({"app": "apii"}),
                "spec.selector: `app: apii` matches no Pod; 3 Pods have `app: api`",
            ),
            (
                json!({"appp": "api"}),
                "spec.selector: `appp: api` matches no Pod; 3 Pods have `app: api`",
            ),
            (
                json!({"app": "pai"}),
                "spec.selector: `app: pai` matches no Pod; 3 Pods have `app: api`",
            ),
            // Another program, whose Pods will come.
            (json!({"app": "db"}), ""),
            (json!({"app": "app"}), ""),
            (json!({"app": "api2"}), ""),
            (json!({"app": "apii", "tier": "front"}), ""),
        ];
        for (selector, expected) in cases {
            assert_eq!(said(&selector), expected, "{selector}");
        }
    }

    #[test]
    fn ports_are_held_against_the_pods_that_there_are() {
        let http = json!([{"name": "http", "containerPort": 8080}]);
        let name = "spec.ports[0].targetPort: targetPort \"htpp\" of port 80/TCP is the name of no container port in 1 \
             of 1 Pod; they have \"http\" (8080/TCP)";
        let hint = |number: u16| {
            format!(
                "spec.ports[0].targetPort: no container of the Service's Pods declares port {number}/TCP, they declare \
                 8080; a hint only: it works if a program listens there"
            )
        };
        let cases = [
            (json!({"targetPort": "http"}), &http, String::new()),
            (json!({"targetPort": "htpp"}), &http, name.to_owned()),
            (json!({"targetPort": 8080}), &http, String::new()),
            (json!({"targetPort": 8088}), &http, hint(8088)),
            (json!({}), &http, hint(80)),
            // Chosen, and quite another one: a port of its own.
            (json!({"targetPort": 9100}), &http, String::new()),
            (json!({"targetPort": 80}), &json!([]), String::new()),
        ];
        for (port, declared, expected) in cases {
            let mut port = port;
            port["port"] = json!(80);
            let pods = vec![pod(declared.clone())];
            let spec = json!({"selector": {"app": "web"}, "ports": [port]});
            assert_eq!(on_write(&service(spec), pods).join("|"), expected, "{port}");
        }
    }

    #[test]
    fn an_external_name_is_a_name() {
        let said = |name: &str| {
            let spec = json!({"type": "ExternalName", "externalName": name});
            on_write(&service(spec), Vec::new()).join("|")
        };
        assert_eq!(said("example.com"), "");
        assert_eq!(
            said("192.0.2.1"),
            "spec.externalName: externalName 192.0.2.1 is an address, and the DNS has aliases of names only; use a \
             Service without selector, and an EndpointSlice with the address 192.0.2.1"
        );
    }
}
