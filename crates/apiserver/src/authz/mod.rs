//! Authorisation: who may do what. Node, then RBAC; members of `system:masters` may do everything.
//! Upstream: `k8s.io/apiserver/pkg/authorization`, `pkg/kubeapiserver/authorizer`.

pub mod access_review;
pub mod node;
pub mod rbac;

pub use node::NodeAuthorizer;
pub use rbac::{EscalationCheck, Rbac};

use crate::plugin::{Authorizer, Decision, Reader};
use crate::request::Attributes;
use coracle_meta::{GroupResource, Status};
use std::sync::Arc;

/// The group whose members may do everything, whatever is stored: the way in when RBAC is broken.
pub const PRIVILEGED_GROUP: &str = "system:masters";

/// Every caller who has shown who they are.
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";

/// Every caller who has not.
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";

/// Asks the authorisers in order until one allows or denies; without an opinion, all reasons are joined.
pub fn authorize(
    authorizers: &[Arc<dyn Authorizer>],
    attributes: &Attributes,
    reader: &dyn Reader,
) -> Decision {
    if attributes.user.in_group(PRIVILEGED_GROUP) {
        return Decision::Allow;
    }
    let mut reasons: Vec<String> = Vec::new();
    for authorizer in authorizers {
        match authorizer.authorize(attributes, reader) {
            Decision::NoOpinion(reason) if reason.is_empty() => {}
            Decision::NoOpinion(reason) => reasons.push(reason),
            decided => return decided,
        }
    }
    Decision::NoOpinion(reasons.join("\n"))
}

/// The 403 for a request that was not allowed.
pub fn forbidden(attributes: &Attributes, reason: &str) -> Status {
    let mut message = forbidden_message(attributes)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    let resource = GroupResource::new(attributes.api_group.clone(), attributes.resource.clone());
    Status::forbidden(&resource, &attributes.name, message)
}

fn forbidden_message(attributes: &Attributes) -> String {
    let Attributes {
        user,
        verb,
        api_group,
        namespace,
        ..
    } = attributes;
    let user = &user.name;
    if !attributes.is_resource_request {
        return format!("User {user:?} cannot {verb} path {:?}", attributes.path);
    }
    let resource = if attributes.subresource.is_empty() {
        attributes.resource.clone()
    } else {
        format!("{}/{}", attributes.resource, attributes.subresource)
    };
    let what = format!("User {user:?} cannot {verb} resource {resource:?} in API group {api_group:?}");
    if namespace.is_empty() {
        format!("{what} at the cluster scope")
    } else {
        format!("{what} in the namespace {namespace:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::UserInfo;

    #[test]
    fn messages_are_upstreams() {
        let mut attributes = Attributes {
            user: UserInfo::new("x", &[]),
            verb: "list".to_owned(),
            resource: "pods".to_owned(),
            namespace: "default".to_owned(),
            is_resource_request: true,
            ..Attributes::default()
        };
        assert_eq!(
            forbidden(&attributes, "").message,
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        attributes.namespace.clear();
        attributes.api_group = "apps".to_owned();
        attributes.resource = "deployments".to_owned();
        attributes.subresource = "scale".to_owned();
        attributes.name = "web".to_owned();
        attributes.verb = "update".to_owned();
        assert_eq!(
            forbidden(&attributes, "RBAC: gone").message,
            r#"deployments.apps "web" is forbidden: User "x" cannot update resource "deployments/scale" in API group "apps" at the cluster scope: RBAC: gone"#
        );
        let path = Attributes {
            user: UserInfo::new("system:anonymous", &[]),
            verb: "get".to_owned(),
            path: "/<x>".to_owned(),
            ..Attributes::default()
        };
        assert_eq!(
            forbidden(&path, "").message,
            r#"forbidden: User "system:anonymous" cannot get path "/&lt;x&gt;""#
        );
    }
}
