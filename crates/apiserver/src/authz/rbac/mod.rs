//! Role-based access control. Upstream: `plugin/pkg/auth/authorizer/rbac`.

mod escalation;
mod policy;
mod rule;
#[cfg(test)]
mod tests;

pub use escalation::{EscalationCheck, confirm_no_escalation};
pub use policy::{Binding, Policy, RoleRef, Source, Subject, Visit, role_ref_of, rules_of};
pub use rule::{PolicyRule, break_down, compact, uncovered};

use crate::plugin::{Authorizer, Decision, Reader};
use crate::request::Attributes;
use coracle_meta::GroupResource;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Allows what the stored roles and bindings allow.
///
/// Keeps an index of them and reads a resource again when it has changed since: a role that was written is in
/// force for the next request.
#[derive(Default)]
pub struct Rbac {
    index: Mutex<Indexed>,
}

#[derive(Default)]
struct Indexed {
    /// The revisions of roles, cluster roles, bindings and cluster bindings that `policy` is made of.
    seen: [Option<u64>; 4],
    policy: Policy,
}

impl Rbac {
    /// The policy as it is stored now.
    pub fn policy(&self, reader: &dyn Reader) -> Policy {
        let mut index = self.index.lock();
        let Indexed { seen, policy } = &mut *index;
        let names = ["roles", "clusterroles", "rolebindings", "clusterrolebindings"];
        for (seen, name) in seen.iter_mut().zip(names) {
            let resource = GroupResource::new(GROUP, name);
            let changed = Some(reader.changed_at(&resource));
            if *seen == changed {
                continue;
            }
            let objects = reader.list(&resource, None);
            match name {
                "roles" => policy.roles = Arc::new(policy::index_roles(&objects)),
                "clusterroles" => policy.cluster_roles = Arc::new(policy::index_cluster_roles(&objects)),
                "rolebindings" => policy.bindings = Arc::new(policy::index_bindings(&objects)),
                _ => policy.cluster_bindings = Arc::new(policy::index_cluster_bindings(&objects)),
            }
            *seen = changed;
        }
        policy.clone()
    }

    /// The binding through which a request is allowed, in words.
    pub fn allowed_by(&self, attributes: &Attributes, reader: &dyn Reader) -> Option<String> {
        let mut found = None;
        let policy = self.policy(reader);
        policy.visit(&attributes.user, &attributes.namespace, |visit| match visit {
            Visit::Rule(source, rule) if rule.allows(attributes) => {
                found = Some(source.to_string());
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
        found
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes, reader: &dyn Reader) -> Decision {
        decide(&self.policy(reader), attributes)
    }
}

/// The verdict of a policy about a request.
pub fn decide(policy: &Policy, attributes: &Attributes) -> Decision {
    let mut allowed = false;
    let mut errors = BTreeSet::new();
    policy.visit(&attributes.user, &attributes.namespace, |visit| {
        match visit {
            Visit::Rule(source, rule) if rule.allows(attributes) => {
                tracing::trace!(%source, "allowed by rbac");
                allowed = true;
                return ControlFlow::Break(());
            }
            Visit::Rule(..) => {}
            Visit::Unresolved(error) => {
                errors.insert(error);
            }
        }
        ControlFlow::Continue(())
    });
    if allowed {
        return Decision::Allow;
    }
    let errors: Vec<String> = errors.into_iter().collect();
    Decision::NoOpinion(match &errors[..] {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    })
}
