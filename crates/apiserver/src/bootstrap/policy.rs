//! Upstream's default roles and bindings, as data: `policy/*.json`, without what all of them share.
//! Upstream: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy` (1.36).
//!
//! Ours alone are the roles of `service-allocation-repair-controller` (upstream's API server does that itself) and of
//! `service-diagnosis-controller`, the binding `coracle:node-proxier`: a node runs the Service data plane and the
//! cluster DNS, and so reads what upstream's `kube-proxy` reads; and `coracle:network-policy`: whoever enforces
//! NetworkPolicies reads them, and the pods and namespaces that they select.

use crate::authz::rbac::{GROUP, PolicyRule};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// A role of the files.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Role {
    name: String,
    #[serde(default)]
    namespace: String,
    /// The roles that take in this one's rules.
    #[serde(default)]
    aggregate_to: Vec<String>,
    /// This role takes in the rules of those that aggregate to this name.
    aggregates: Option<String>,
    #[serde(default)]
    rules: Vec<PolicyRule>,
}

/// A binding of the files: the role as `KIND/NAME`, subjects as `User/NAME`, `Group/NAME` or
/// `ServiceAccount/NAMESPACE/NAME`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Binding {
    name: String,
    #[serde(default)]
    namespace: String,
    role: String,
    subjects: Vec<String>,
}

fn parse<T: for<'de> Deserialize<'de>>(file: &'static str) -> T {
    serde_json::from_str(file).expect("the embedded policy files are read by a test")
}

fn cluster_role_list() -> Vec<Role> {
    parse(include_str!("policy/cluster_roles.json"))
}

/// The rules of a default cluster role; none if there is no such role.
pub fn cluster_role_rules(name: &str) -> Vec<PolicyRule> {
    let roles = cluster_role_list();
    roles
        .into_iter()
        .find(|role| role.name == name)
        .map(|role| role.rules)
        .unwrap_or_default()
}

fn metadata(name: &str, namespace: &str, aggregate_to: &[String]) -> Value {
    let mut labels = BTreeMap::from([("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults")]);
    labels.extend(aggregate_to.iter().map(|to| (format!("{AGGREGATE}{to}"), "true")));
    let mut metadata = json!({
        "name": name,
        "labels": labels,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn role_object(role: &Role, all: &[Role]) -> Value {
    let kind = if role.namespace.is_empty() {
        "ClusterRole"
    } else {
        "Role"
    };
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": metadata(&role.name, &role.namespace, &role.aggregate_to),
        "rules": role.rules,
    });
    if let Some(name) = &role.aggregates {
        object["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {format!("{AGGREGATE}{name}"): "true"}}]});
        // The aggregation controller finds nothing to do at the first start.
        object["rules"] = json!(aggregated(name, all));
    }
    object
}

/// The rules of all roles that aggregate to `name`, directly or through another aggregated role, in order of the
/// roles' names, each once. Upstream: `pkg/controller/clusterroleaggregation`.
fn aggregated(name: &str, all: &[Role]) -> Vec<PolicyRule> {
    let mut sources: Vec<&Role> = all
        .iter()
        .filter(|role| role.aggregate_to.iter().any(|to| to == name))
        .collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for source in sources {
        let of_source = match &source.aggregates {
            Some(inner) => aggregated(inner, all),
            None => source.rules.clone(),
        };
        for rule in of_source {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    rules
}

fn binding_object(binding: &Binding) -> Value {
    let kind = if binding.namespace.is_empty() {
        "ClusterRoleBinding"
    } else {
        "RoleBinding"
    };
    let (role_kind, role_name) = binding
        .role
        .split_once('/')
        .unwrap_or(("ClusterRole", &binding.role));
    let subjects: Vec<Value> = binding.subjects.iter().filter_map(|text| subject(text)).collect();
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": metadata(&binding.name, &binding.namespace, &[]),
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role_name},
        "subjects": subjects,
    })
}

fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once('/')?;
    Some(match kind {
        "ServiceAccount" => {
            let (namespace, name) = name.split_once('/')?;
            json!({"kind": kind, "namespace": namespace, "name": name})
        }
        _ => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
    })
}

/// The default ClusterRoles.
pub fn cluster_roles() -> Vec<Value> {
    let all = cluster_role_list();
    all.iter().map(|role| role_object(role, &all)).collect()
}

/// The default Roles.
pub fn roles() -> Vec<Value> {
    let all: Vec<Role> = parse(include_str!("policy/roles.json"));
    all.iter().map(|role| role_object(role, &all)).collect()
}

/// The default ClusterRoleBindings.
pub fn cluster_role_bindings() -> Vec<Value> {
    let all: Vec<Binding> = parse(include_str!("policy/cluster_role_bindings.json"));
    all.iter().map(binding_object).collect()
}

/// The default RoleBindings.
pub fn role_bindings() -> Vec<Value> {
    let all: Vec<Binding> = parse(include_str!("policy/role_bindings.json"));
    all.iter().map(binding_object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::rbac::{Policy, decide};
    use crate::plugin::Decision;
    use crate::request::{Attributes, UserInfo};
    use coracle_meta::object::ObjectExt;

    fn policy() -> Policy {
        Policy::new(
            &roles(),
            &cluster_roles(),
            &role_bindings(),
            &cluster_role_bindings(),
        )
    }

    fn may(user: &str, groups: &[&str], verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = Attributes {
            user: UserInfo::new(user, groups),
            verb: verb.to_owned(),
            api_group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            is_resource_request: true,
            ..Attributes::default()
        };
        decide(&policy(), &attributes) == Decision::Allow
    }

    #[test]
    fn every_binding_names_a_role_and_has_readable_subjects() {
        let policy = policy();
        for binding in cluster_role_bindings().iter().chain(&role_bindings()) {
            let role = crate::authz::rbac::role_ref_of(binding);
            assert_eq!(
                policy.role_rules(&role, binding.namespace()).err(),
                None,
                "{}",
                binding.name()
            );
        }
        let all: Vec<Binding> = parse(include_str!("policy/cluster_role_bindings.json"));
        assert!(all.iter().flat_map(|b| &b.subjects).all(|s| subject(s).is_some()));
    }

    #[test]
    fn who_may_do_what() {
        let rs = "system:serviceaccount:kube-system:replicaset-controller";
        let table = [
            (rs, "create", "", "pods", "default", true),
            (rs, "create", "", "secrets", "default", false),
            (
                "system:kube-scheduler",
                "create",
                "",
                "pods/binding",
                "default",
                true,
            ),
            ("system:kube-scheduler", "delete", "", "nodes", "", false),
            (
                "system:serviceaccount:kube-system:endpointslice-controller",
                "create",
                "discovery.k8s.io",
                "endpointslices",
                "a",
                true,
            ),
            (
                "system:serviceaccount:kube-system:namespace-controller",
                "delete",
                "any.example",
                "things",
                "a",
                true,
            ),
            (
                "system:serviceaccount:kube-system:generic-garbage-collector",
                "patch",
                "any.example",
                "things",
                "a",
                true,
            ),
            ("nobody", "get", "", "pods", "default", false),
        ];
        for (user, verb, group, resource, namespace, expected) in table {
            assert_eq!(
                may(user, &["system:authenticated"], verb, group, resource, namespace),
                expected,
                "{user} {verb} {resource}"
            );
        }
        assert!(may(
            "system:node:a",
            &["system:nodes"],
            "watch",
            "discovery.k8s.io",
            "endpointslices",
            ""
        ));
        assert!(!may(
            "system:node:a",
            &["system:nodes"],
            "watch",
            "",
            "secrets",
            ""
        ));
    }

    #[test]
    fn aggregated_roles_have_their_rules_at_once() {
        let roles = cluster_roles();
        let rules = |name: &str| {
            let role = roles.iter().find(|r| r.name() == name).unwrap();
            crate::authz::rbac::rules_of(role)
        };
        let names = |rules: &[PolicyRule]| -> Vec<String> {
            rules.iter().flat_map(|r| r.resources.clone()).collect()
        };
        assert!(names(&rules("view")).contains(&"pods".to_owned()));
        assert!(!names(&rules("view")).contains(&"secrets".to_owned()));
        assert!(names(&rules("edit")).contains(&"secrets".to_owned()));
        assert!(names(&rules("admin")).contains(&"rolebindings".to_owned()));
        // admin takes in edit, which takes in view.
        for rule in rules("view") {
            assert!(rules("edit").contains(&rule) && rules("admin").contains(&rule));
        }
    }
}
