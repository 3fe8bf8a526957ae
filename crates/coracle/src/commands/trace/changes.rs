//! Changes of Services, EndpointSlices and Pods in words.

use coracle_meta::Selector;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

/// A write that the API server remembers.
#[derive(Debug, Clone)]
pub struct Change {
    /// Revision of the write.
    pub revision: u64,
    /// When it was durable.
    pub at: Timestamp,
    /// The object before; none if it was created.
    pub before: Option<Value>,
    /// The object after; none if it was deleted.
    pub after: Option<Value>,
}

impl Change {
    /// The object, or the deleted one as it was.
    pub fn object(&self) -> &Value {
        self.after
            .as_ref()
            .or(self.before.as_ref())
            .unwrap_or(&Value::Null)
    }

    fn name(&self) -> &str {
        self.object().name()
    }

    /// Who wrote, by the managed fields: whoever has others than before, and of several the last.
    pub fn by(&self) -> &str {
        let before = self.before.as_ref().map(managed_fields).unwrap_or_default();
        let after = managed_fields(self.object());
        let is_new = |entry: &&&Value| !before.contains(*entry);
        let time = |entry: &&&Value| entry["time"].as_str().unwrap_or_default().to_owned();
        let newest = after.iter().filter(is_new).max_by_key(time);
        // A second time in one second leaves no trace.
        let newest = newest.or_else(|| after.iter().max_by_key(time));
        newest
            .and_then(|entry| entry["manager"].as_str())
            .unwrap_or_default()
    }
}

fn managed_fields(object: &Value) -> Vec<&Value> {
    let fields = object
        .at(&["metadata", "managedFields"])
        .and_then(Value::as_array);
    fields.into_iter().flatten().collect()
}

/// What a write did to a Service; none if nothing that people wrote or that packets depend on: conditions, such as our
/// own, follow changes.
pub fn of_service(change: &Change) -> Option<String> {
    let name = change.name();
    match (&change.before, &change.after) {
        (None, _) => Some(format!("Service {name} created")),
        (Some(_), None) => Some(format!("Service {name} deleted")),
        (Some(before), Some(after)) => {
            let mut fields: Vec<String> = ["labels", "annotations"]
                .into_iter()
                .filter(|field| before["metadata"][field] != after["metadata"][field])
                .map(|field| format!("metadata.{field}"))
                .collect();
            let spec = different(&before["spec"], &after["spec"]);
            fields.extend(spec.into_iter().map(|field| format!("spec.{field}")));
            if before["status"]["loadBalancer"] != after["status"]["loadBalancer"] {
                fields.push("status.loadBalancer".to_owned());
            }
            (!fields.is_empty()).then(|| format!("Service {name} changed: {}", fields.join(", ")))
        }
    }
}

/// What a write did to the endpoints of a slice; none if nothing.
pub fn of_slice(change: &Change) -> Option<String> {
    let before = change.before.as_ref().map(ready_addresses).unwrap_or_default();
    let after = change.after.as_ref().map(ready_addresses).unwrap_or_default();
    let ports = |slice: &Option<Value>| slice.as_ref().map(|slice| slice["ports"].clone());
    let same_ports = ports(&change.before) == ports(&change.after);
    if before == after && same_ports && change.before.is_some() && change.after.is_some() {
        return None;
    }
    let mut text = format!("EndpointSlice {} has {} ready", change.name(), after.len());
    for (sign, addresses) in [("+", after.difference(&before)), ("-", before.difference(&after))] {
        for address in addresses.take(MOST_ADDRESSES) {
            text.push_str(&format!(" {sign}{address}"));
        }
    }
    Some(text)
}

const MOST_ADDRESSES: usize = 4;

fn ready_addresses(slice: &Value) -> BTreeSet<&str> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != Value::Bool(false));
    ready
        .filter_map(|endpoint| endpoint["addresses"][0].as_str())
        .collect()
}

/// What a write did to a Pod that makes it an endpoint, or no longer; none if nothing, or if the selector does not
/// find it.
pub fn of_pod(change: &Change, selector: &Selector) -> Option<String> {
    let selected = |pod: &Option<Value>| pod.as_ref().filter(|pod| selector.matches_object(pod)).cloned();
    let (before, after) = (selected(&change.before), selected(&change.after));
    let (was, is) = (before.as_ref().map(state), after.as_ref().map(state));
    if was == is {
        return None;
    }
    let name = change.name();
    Some(match (was, is) {
        (_, None) if change.after.is_none() => format!("Pod {name} is gone"),
        (_, None) => format!("Pod {name} has other labels"),
        (_, Some(State::Ending)) => format!("Pod {name} is being deleted"),
        (_, Some(State::Ready)) => format!("Pod {name} became ready"),
        (None, Some(State::NotReady)) => format!("Pod {name} is selected"),
        (Some(_), Some(State::NotReady)) => format!("Pod {name} is not ready any more"),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NotReady,
    Ready,
    Ending,
}

fn state(pod: &Value) -> State {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions
        .into_iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    if pod.is_terminating() {
        State::Ending
    } else if ready {
        State::Ready
    } else {
        State::NotReady
    }
}

/// The fields that two objects have differently.
fn different(before: &Value, after: &Value) -> BTreeSet<String> {
    let keys = |value: &Value| {
        value
            .as_object()
            .map(|o| o.keys().cloned().collect::<Vec<_>>())
            .unwrap_or_default()
    };
    let all = keys(before).into_iter().chain(keys(after));
    all.filter(|key| before[key.as_str()] != after[key.as_str()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn change(before: Value, after: Value) -> Change {
        let object = |value: Value| Some(value).filter(|value| !value.is_null());
        Change {
            revision: 1,
            at: Timestamp::UNIX_EPOCH,
            before: object(before),
            after: object(after),
        }
    }

    #[test]
    fn services() {
        let service = |port: u16, annotation: &str| json!({"metadata": {"name": "web", "annotations": {"a": annotation}}, "spec": {"ports": [{"port": port}], "type": "ClusterIP"}});
        let said = |before, after| of_service(&change(before, after));
        assert_eq!(
            said(json!(null), service(1, "")).as_deref(),
            Some("Service web created")
        );
        assert_eq!(
            said(service(1, ""), json!(null)).as_deref(),
            Some("Service web deleted")
        );
        assert_eq!(
            said(service(1, ""), service(2, "")).as_deref(),
            Some("Service web changed: spec.ports")
        );
        assert_eq!(
            said(service(1, "x"), service(2, "y")).as_deref(),
            Some("Service web changed: metadata.annotations, spec.ports")
        );
        let mut told = service(1, "");
        told["metadata"]["managedFields"] = json!([{"manager": "service-diagnosis-controller"}]);
        told["metadata"]["resourceVersion"] = json!("9");
        told["status"] = json!({"conditions": [{"type": "coracle.dev/Reachable", "status": "False"}]});
        assert_eq!(said(service(1, ""), told), None, "a condition");
    }

    #[test]
    fn who_wrote_is_who_has_other_fields_than_before() {
        let service = |fields: &[(&str, &str)]| {
            let fields: Vec<Value> = fields
                .iter()
                .map(|(manager, time)| json!({"manager": manager, "time": time}))
                .collect();
            json!({"metadata": {"name": "web", "managedFields": fields}})
        };
        let before = [
            ("kubectl", "2026-01-01T00:00:01Z"),
            ("lb", "2026-01-01T00:00:05Z"),
        ];
        let after = [
            ("kubectl", "2026-01-01T00:00:05Z"),
            ("lb", "2026-01-01T00:00:05Z"),
        ];
        assert_eq!(change(service(&before), service(&after)).by(), "kubectl");
        assert_eq!(change(json!(null), service(&before)).by(), "lb");
        assert_eq!(
            change(service(&before), service(&before)).by(),
            "lb",
            "within a second"
        );
        assert_eq!(change(service(&before), json!(null)).by(), "lb", "deleted");
    }

    #[test]
    fn slices() {
        let slice = |endpoints: &[(&str, bool)]| {
            let endpoints: Vec<Value> = endpoints
                .iter()
                .map(|(ip, ready)| json!({"addresses": [ip], "conditions": {"ready": ready}}))
                .collect();
            json!({"metadata": {"name": "web-x"}, "endpoints": endpoints, "ports": [{"port": 80}]})
        };
        let said = |before, after| of_slice(&change(before, after));
        let one = slice(&[("10.0.0.1", true), ("10.0.0.2", false)]);
        let other = slice(&[("10.0.0.2", true)]);
        let text = said(one.clone(), other);
        assert_eq!(
            text.as_deref(),
            Some("EndpointSlice web-x has 1 ready +10.0.0.2 -10.0.0.1")
        );
        let again = slice(&[("10.0.0.1", true)]);
        assert_eq!(said(one, again), None);
    }

    #[test]
    fn pods() {
        let selector = Selector::parse("app=web").expect("a selector");
        let pod = |app: &str, ready: &str| {
            json!({"metadata": {"name": "p", "labels": {"app": app}},
                   "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        let mut ending = pod("web", "True");
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let said = |before: &Value, after: &Value| of_pod(&change(before.clone(), after.clone()), &selector);
        let (ready, unready, other) = (pod("web", "True"), pod("web", "False"), pod("db", "True"));
        assert_eq!(said(&unready, &ready).as_deref(), Some("Pod p became ready"));
        assert_eq!(
            said(&ready, &unready).as_deref(),
            Some("Pod p is not ready any more")
        );
        assert_eq!(said(&ready, &ending).as_deref(), Some("Pod p is being deleted"));
        assert_eq!(said(&ending, &json!(null)).as_deref(), Some("Pod p is gone"));
        assert_eq!(said(&other, &ready).as_deref(), Some("Pod p became ready"));
        assert_eq!(said(&ready, &other).as_deref(), Some("Pod p has other labels"));
        assert_eq!(said(&other, &json!(null)), None);
        assert_eq!(said(&ready, &ready), None);
    }
}
