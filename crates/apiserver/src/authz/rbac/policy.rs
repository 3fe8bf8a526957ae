//! Roles and bindings as an index, and the walk over the rules that apply to a user.
//! Upstream: `pkg/registry/rbac/validation/rule.go`.

use super::rule::PolicyRule;
use crate::request::UserInfo;
use coracle_meta::object::ObjectExt;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// `kind/name` of a role in a binding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    /// `rbac.authorization.k8s.io`.
    pub api_group: String,
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Whom a binding is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Of a ServiceAccount; empty is the namespace of the binding.
    pub namespace: String,
}

impl Subject {
    fn applies_to(&self, user: &UserInfo, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => user.name == self.name,
            "Group" => user.in_group(&self.name),
            "ServiceAccount" => {
                let namespace = self.namespace_or(binding_namespace);
                !namespace.is_empty()
                    && user
                        .name
                        .strip_prefix("system:serviceaccount:")
                        .and_then(|rest| rest.split_once(':'))
                        .is_some_and(|(ns, name)| ns == namespace && name == self.name)
            }
            _ => false,
        }
    }

    fn namespace_or<'a>(&'a self, binding_namespace: &'a str) -> &'a str {
        if self.namespace.is_empty() {
            binding_namespace
        } else {
            &self.namespace
        }
    }
}

/// A RoleBinding, or in namespace `""` a ClusterRoleBinding.
#[derive(Debug, Clone, Default)]
pub struct Binding {
    namespace: String,
    name: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

impl Binding {
    /// Reads the JSON of a binding. Parts that are no binding's count as absent: validation keeps them out.
    pub fn from_object(object: &Value) -> Self {
        Self {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            role: parse(object.get("roleRef")),
            subjects: parse(object.get("subjects")),
        }
    }
}

/// The rules in the JSON of a role.
pub fn rules_of(role: &Value) -> Vec<PolicyRule> {
    parse(role.get("rules"))
}

/// The role that a binding's JSON names.
pub fn role_ref_of(binding: &Value) -> RoleRef {
    parse(binding.get("roleRef"))
}

fn parse<T: for<'de> Deserialize<'de> + Default>(value: Option<&Value>) -> T {
    value.and_then(|v| T::deserialize(v).ok()).unwrap_or_default()
}

/// A binding and the subject in it through which a rule applies; for the reason of a decision.
pub struct Source<'a> {
    binding: &'a Binding,
    subject: &'a Subject,
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { binding, subject } = self;
        let (kind, name) = if binding.namespace.is_empty() {
            ("ClusterRoleBinding", binding.name.clone())
        } else {
            ("RoleBinding", format!("{}/{}", binding.name, binding.namespace))
        };
        let who = match subject.kind.as_str() {
            "ServiceAccount" => format!("{}/{}", subject.name, subject.namespace_or(&binding.namespace)),
            _ => subject.name.clone(),
        };
        write!(
            f,
            "{kind} {name:?} of {} {:?} to {} {who:?}",
            binding.role.kind, binding.role.name, subject.kind
        )
    }
}

/// What a walk meets: a rule that applies to the user, or a role that could not be found.
pub enum Visit<'a> {
    /// A rule and where it comes from.
    Rule(Source<'a>, &'a PolicyRule),
    /// Why a binding's role has no rules.
    Unresolved(String),
}

/// All roles and bindings of a cluster. Key: namespace (empty for the cluster-wide kinds) and name.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    pub(super) roles: Arc<HashMap<(String, String), Vec<PolicyRule>>>,
    pub(super) cluster_roles: Arc<HashMap<String, Vec<PolicyRule>>>,
    pub(super) bindings: Arc<BTreeMap<(String, String), Binding>>,
    pub(super) cluster_bindings: Arc<BTreeMap<String, Binding>>,
}

impl Policy {
    /// An index of the JSON of Roles, ClusterRoles, RoleBindings and ClusterRoleBindings.
    pub fn new(
        roles: &[Value],
        cluster_roles: &[Value],
        bindings: &[Value],
        cluster_bindings: &[Value],
    ) -> Self {
        Self {
            roles: Arc::new(index_roles(roles)),
            cluster_roles: Arc::new(index_cluster_roles(cluster_roles)),
            bindings: Arc::new(index_bindings(bindings)),
            cluster_bindings: Arc::new(index_cluster_bindings(cluster_bindings)),
        }
    }

    /// The rules of the role that a binding in this namespace names.
    pub fn role_rules(&self, role: &RoleRef, namespace: &str) -> Result<&[PolicyRule], String> {
        let (found, kind) = match role.kind.as_str() {
            "ClusterRole" => (self.cluster_roles.get(&role.name), "clusterrole"),
            "Role" => (self.roles.get(&(namespace.to_owned(), role.name.clone())), "role"),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        found
            .map(Vec::as_slice)
            .ok_or_else(|| format!("{kind}.rbac.authorization.k8s.io {:?} not found", role.name))
    }

    /// Meets every rule that applies to the user in the namespace (empty: cluster-wide only), until told to stop.
    pub fn visit(
        &self,
        user: &UserInfo,
        namespace: &str,
        mut visitor: impl FnMut(Visit<'_>) -> ControlFlow<()>,
    ) {
        let of_namespace = self
            .bindings
            .range((namespace.to_owned(), String::new())..)
            .take_while(|((ns, _), _)| !namespace.is_empty() && ns == namespace)
            .map(|(_, binding)| binding);
        for binding in self.cluster_bindings.values().chain(of_namespace) {
            let applies = |s: &&Subject| s.applies_to(user, &binding.namespace);
            let Some(subject) = binding.subjects.iter().find(applies) else {
                continue;
            };
            let flow = match self.role_rules(&binding.role, &binding.namespace) {
                Err(error) => visitor(Visit::Unresolved(error)),
                Ok(rules) => rules
                    .iter()
                    .try_for_each(|rule| visitor(Visit::Rule(Source { binding, subject }, rule))),
            };
            if flow.is_break() {
                return;
            }
        }
    }

    /// All rules that apply to the user in the namespace, and what could not be resolved.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let mut rules = Vec::new();
        let mut errors = Vec::new();
        self.visit(user, namespace, |visit| {
            match visit {
                Visit::Rule(_, rule) => rules.push(rule.clone()),
                Visit::Unresolved(error) => errors.push(error),
            }
            ControlFlow::Continue(())
        });
        (rules, errors)
    }
}

pub(super) fn index_roles(roles: &[Value]) -> HashMap<(String, String), Vec<PolicyRule>> {
    roles
        .iter()
        .map(|r| ((r.namespace().to_owned(), r.name().to_owned()), rules_of(r)))
        .collect()
}

pub(super) fn index_cluster_roles(roles: &[Value]) -> HashMap<String, Vec<PolicyRule>> {
    roles.iter().map(|r| (r.name().to_owned(), rules_of(r))).collect()
}

pub(super) fn index_bindings(bindings: &[Value]) -> BTreeMap<(String, String), Binding> {
    bindings
        .iter()
        .map(Binding::from_object)
        .map(|b| ((b.namespace.clone(), b.name.clone()), b))
        .collect()
}

pub(super) fn index_cluster_bindings(bindings: &[Value]) -> BTreeMap<String, Binding> {
    bindings
        .iter()
        .map(Binding::from_object)
        .map(|b| (b.name.clone(), b))
        .collect()
}
