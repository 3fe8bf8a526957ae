//! What to do about a default object that exists already, possibly changed by an administrator.
//! Upstream: `component-helpers/auth/rbac/reconciliation`.

use crate::authz::rbac::{role_ref_of, rules_of, uncovered};
use coracle_meta::object::ObjectExt;
use serde_json::{Map, Value, json};

/// How a default object is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// It is left as it is.
    IfAbsent,
    /// It is left as it is, but gets the second range of a cluster that has become dual-stack.
    ServiceCidr,
    /// Missing rules, labels and annotations are added, unless its annotation `autoupdate` is `false`.
    Role,
    /// Missing subjects are added; one that names another role is replaced.
    Binding,
    /// Everything but the metadata that others add is made as wanted.
    Exactly,
    /// The same, but for the cluster IP, which a Service keeps for life even when the network's range changes.
    Service,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Nothing.
    None,
    /// Write this over it.
    Update(Value),
    /// Delete it and create it anew.
    Replace,
}

/// Compares an existing object with what is wanted.
pub fn reconcile(existing: &Value, wanted: &Value, upkeep: Upkeep) -> Change {
    let protected = existing.annotation("rbac.authorization.kubernetes.io/autoupdate") == Some("false");
    let mut updated = existing.clone();
    match upkeep {
        Upkeep::IfAbsent => return Change::None,
        Upkeep::Role | Upkeep::Binding if protected => return Change::None,
        Upkeep::ServiceCidr => {
            let ranges = |object: &Value| object.at(&["spec", "cidrs"]).and_then(Value::as_array).cloned();
            if let (Some(before), Some(after)) = (ranges(existing), ranges(wanted))
                && before.len() == 1
                && after.len() == 2
                && before[0] == after[0]
            {
                updated["spec"]["cidrs"] = json!(after);
            }
        }
        Upkeep::Role => {
            add_metadata(&mut updated, wanted);
            add_items(&mut updated, wanted, &["aggregationRule", "clusterRoleSelectors"]);
            // The rules of an aggregated role belong to the aggregation controller.
            if wanted.get("aggregationRule").is_none() {
                let mut rules = rules_of(existing);
                rules.extend(uncovered(&rules, &rules_of(wanted)));
                if rules != rules_of(existing) {
                    updated["rules"] = json!(rules);
                }
            }
        }
        Upkeep::Binding => {
            if role_ref_of(existing) != role_ref_of(wanted) {
                return Change::Replace;
            }
            add_metadata(&mut updated, wanted);
            add_items(&mut updated, wanted, &["subjects"]);
        }
        Upkeep::Exactly | Upkeep::Service => {
            let mut wanted = wanted.clone();
            if upkeep == Upkeep::Service
                && let Some(spec) = wanted.get_mut("spec").and_then(Value::as_object_mut)
            {
                spec.remove("clusterIP");
            }
            add_metadata(&mut updated, &wanted);
            for (key, value) in wanted.as_object().into_iter().flatten() {
                if key != "metadata" && !contains(&updated[key], value) {
                    merge(&mut updated[key], value);
                }
            }
        }
    }
    if updated == *existing {
        Change::None
    } else {
        Change::Update(updated)
    }
}

fn add_metadata(object: &mut Value, wanted: &Value) {
    for key in ["labels", "annotations"] {
        let Some(wanted) = wanted.at(&["metadata", key]).and_then(Value::as_object) else {
            continue;
        };
        let metadata = &mut object["metadata"];
        if !metadata[key].is_object() {
            metadata[key] = Value::Object(Map::new());
        }
        for (name, value) in wanted {
            metadata[key][name] = value.clone();
        }
    }
}

/// Appends the items of the wanted list that are missing.
fn add_items(object: &mut Value, wanted: &Value, path: &[&str]) {
    let Some(wanted) = wanted.at(path).and_then(Value::as_array) else {
        return;
    };
    let list = path.iter().fold(object, |value, key| &mut value[*key]);
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        for item in wanted {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
    }
}

/// Whether `value` says everything that `wanted` says; what the server has added does not count.
fn contains(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, inner)| value.get(key).is_some_and(|v| contains(v, inner))),
        (Value::Array(value), Value::Array(wanted)) => {
            value.len() == wanted.len() && value.iter().zip(wanted).all(|(v, w)| contains(v, w))
        }
        _ => value == wanted,
    }
}

fn merge(value: &mut Value, wanted: &Value) {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => {
            for (key, inner) in wanted {
                merge(value.entry(key.clone()).or_insert(Value::Null), inner);
            }
        }
        (value, wanted) => *value = wanted.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(rules: Value, autoupdate: &str) -> Value {
        json!({
            "metadata": {"name": "r", "resourceVersion": "7",
                "annotations": {"rbac.authorization.kubernetes.io/autoupdate": autoupdate}},
            "rules": rules,
        })
    }

    #[test]
    fn missing_rules_are_added_and_extra_ones_stay() {
        let get = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let list = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]});
        let extra = json!({"verbs": ["*"], "apiGroups": ["x"], "resources": ["y"]});
        let wanted = role(json!([get, list]), "true");
        let Change::Update(updated) = reconcile(&role(json!([extra, get]), "true"), &wanted, Upkeep::Role)
        else {
            panic!("a rule is missing");
        };
        assert_eq!(updated["rules"], json!([extra, get, list]));
        assert_eq!(updated["metadata"]["resourceVersion"], "7");
        assert_eq!(reconcile(&updated, &wanted, Upkeep::Role), Change::None);
        assert_eq!(
            reconcile(&role(json!([]), "false"), &wanted, Upkeep::Role),
            Change::None
        );
    }

    #[test]
    fn service_ranges_become_dual_stack_and_nothing_else() {
        let ranges = |cidrs: &[&str]| json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}});
        let (four, six) = ("10.96.0.0/12", "fd00:10:96::/112");
        let changed = |from: &[&str], to: &[&str]| reconcile(&ranges(from), &ranges(to), Upkeep::ServiceCidr);
        assert_eq!(
            changed(&[four], &[four, six]),
            Change::Update(ranges(&[four, six]))
        );
        for (from, to) in [
            (&[four][..], &[four][..]),
            (&[four], &[six, four]),
            (&[four, six], &[four]),
            (&[four], &[six]),
        ] {
            assert_eq!(changed(from, to), Change::None, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn bindings_gain_subjects_and_are_replaced_for_another_role() {
        let binding = |role: &str, subjects: Value| {
            json!({
                "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects,
            })
        };
        let a = json!({"kind": "User", "name": "a"});
        let b = json!({"kind": "User", "name": "b"});
        let wanted = binding("r", json!([a]));
        let Change::Update(updated) = reconcile(&binding("r", json!([b])), &wanted, Upkeep::Binding) else {
            panic!("a subject is missing");
        };
        assert_eq!(updated["subjects"], json!([b, a]));
        assert_eq!(
            reconcile(&binding("other", json!([a])), &wanted, Upkeep::Binding),
            Change::Replace
        );
    }

    #[test]
    fn exact_objects_keep_what_the_server_added() {
        let wanted = json!({"metadata": {"name": "e"}, "ports": [{"port": 6443}]});
        let stored =
            json!({"metadata": {"name": "e", "uid": "u"}, "ports": [{"port": 6443, "protocol": "TCP"}]});
        assert_eq!(reconcile(&stored, &wanted, Upkeep::Exactly), Change::None);
        let moved = json!({"metadata": {"name": "e"}, "ports": [{"port": 7443}]});
        let Change::Update(updated) = reconcile(&stored, &moved, Upkeep::Exactly) else {
            panic!("the port differs");
        };
        assert_eq!(updated["ports"], json!([{"port": 7443}]));
        assert_eq!(updated["metadata"]["uid"], "u");
    }

    #[test]
    fn a_service_keeps_its_address() {
        let service = |ip: &str, port: u16| json!({"spec": {"clusterIP": ip, "ports": [{"port": port}]}});
        let stored = service("10.96.0.1", 443);
        assert_eq!(
            reconcile(&stored, &service("10.0.0.1", 443), Upkeep::Service),
            Change::None
        );
        assert_eq!(
            reconcile(&stored, &service("10.0.0.1", 444), Upkeep::Service),
            Change::Update(service("10.96.0.1", 444))
        );
    }
}
