//! `kubectl auth can-i`: access reviews and the list of rules. Upstream: `pkg/registry/authorization`.

use super::rbac::{PolicyRule, Rbac};
use super::{authorize, node};
use crate::ephemeral;
use crate::plugin::{Authorizer, Connector, Decision, Reader};
use crate::request::{Attributes, Body, UserInfo};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, FieldPath, Status};
use futures::future::BoxFuture;
use http::{Request, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const GROUP: &str = "authorization.k8s.io";

/// Answers `selfsubjectaccessreviews`, `subjectaccessreviews`, `localsubjectaccessreviews` and
/// `selfsubjectrulesreviews`.
#[derive(Clone)]
pub struct AccessReviews {
    authorizers: Arc<[Arc<dyn Authorizer>]>,
    rbac: Arc<Rbac>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    name: String,
    field_selector: Selector,
    label_selector: Selector,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    raw_selector: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NonResourceAttributes {
    path: String,
    verb: String,
}

impl Spec {
    fn attributes(&self, user: UserInfo) -> Attributes {
        if let Some(r) = &self.resource_attributes {
            return Attributes {
                user,
                verb: r.verb.clone(),
                api_group: r.group.clone(),
                api_version: r.version.clone(),
                resource: r.resource.clone(),
                subresource: r.subresource.clone(),
                namespace: r.namespace.clone(),
                name: r.name.clone(),
                is_resource_request: true,
                field_selector: r.field_selector.raw_selector.clone(),
                label_selector: r.label_selector.raw_selector.clone(),
                ..Attributes::default()
            };
        }
        let asked = self.non_resource_attributes.as_ref();
        Attributes {
            user,
            verb: asked.map(|n| n.verb.clone()).unwrap_or_default(),
            path: asked.map(|n| n.path.clone()).unwrap_or_default(),
            ..Attributes::default()
        }
    }

    /// Upstream: `pkg/apis/authorization/validation`.
    fn errors(&self, about_self: bool) -> Vec<FieldError> {
        let spec = FieldPath::new("spec");
        let mut errors = Vec::new();
        match (&self.resource_attributes, &self.non_resource_attributes) {
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                &spec.child("nonResourceAttributes"),
                Value::Null,
                "cannot be specified in combination with resourceAttributes",
            )),
            (None, None) => errors.push(FieldError::invalid(
                &spec.child("resourceAttributes"),
                Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            _ => {}
        }
        if !about_self && self.user.is_empty() && self.groups.is_empty() {
            errors.push(FieldError::invalid(
                &spec.child("user"),
                "",
                "at least one of user or group must be specified",
            ));
        }
        errors
    }
}

impl AccessReviews {
    /// `authorizers` are those that decide about requests, `rbac` is among them.
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>, rbac: Arc<Rbac>) -> Self {
        Self {
            authorizers: authorizers.into(),
            rbac,
        }
    }

    /// Completes the review in the way of the resource that the attributes name.
    pub fn review(
        &self,
        attributes: &Attributes,
        review: Value,
        reader: &dyn Reader,
    ) -> Result<Value, Status> {
        match attributes.resource.as_str() {
            "selfsubjectrulesreviews" => self.rules(attributes, review, reader),
            "selfsubjectaccessreviews" => self.access(review, Some(&attributes.user), reader),
            "localsubjectaccessreviews" => {
                let asked = ["spec", "resourceAttributes", "namespace"];
                let (asked, namespace) = (review.str_at(&asked).unwrap_or_default(), &attributes.namespace);
                if asked != namespace {
                    return Err(Status::bad_request(format!(
                        "spec.resourceAttributes.namespace must match namespace: {namespace}"
                    )));
                }
                self.access(review, None, reader)
            }
            _ => self.access(review, None, reader),
        }
    }

    fn access(
        &self,
        mut review: Value,
        caller: Option<&UserInfo>,
        reader: &dyn Reader,
    ) -> Result<Value, Status> {
        let spec = review.get("spec").cloned().unwrap_or_else(|| json!({}));
        let spec: Spec =
            serde_json::from_value(spec).map_err(|error| Status::bad_request(error.to_string()))?;
        let errors = spec.errors(caller.is_some());
        if !errors.is_empty() {
            let kind = review.str_at(&["kind"]).unwrap_or_default();
            return Err(Status::invalid(GROUP, kind, "", &errors));
        }
        let user = caller.cloned().unwrap_or_else(|| UserInfo {
            name: spec.user.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
        });
        let attributes = spec.attributes(user);
        let mut status = json!({});
        match authorize(&self.authorizers, &attributes, reader) {
            Decision::Allow => {
                status["allowed"] = true.into();
                if let Some(why) = self.rbac.allowed_by(&attributes, reader) {
                    status["reason"] = format!("RBAC: allowed by {why}").into();
                }
            }
            Decision::Deny(reason) => {
                status["allowed"] = false.into();
                status["denied"] = true.into();
                set_reason(&mut status, reason);
            }
            Decision::NoOpinion(reason) => {
                status["allowed"] = false.into();
                set_reason(&mut status, reason);
            }
        }
        review["status"] = status;
        Ok(review)
    }

    fn rules(
        &self,
        attributes: &Attributes,
        mut review: Value,
        reader: &dyn Reader,
    ) -> Result<Value, Status> {
        let namespace = review
            .str_at(&["spec", "namespace"])
            .unwrap_or_default()
            .to_owned();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let (mut rules, mut errors) = self.rbac.policy(reader).rules_for(&attributes.user, &namespace);
        if attributes.user.in_group(super::PRIVILEGED_GROUP) {
            rules.extend(PolicyRule::everything());
        }
        // What a node may do depends on its pods and cannot be listed.
        let incomplete = node::node_name(&attributes.user).is_some() || !errors.is_empty();
        if node::node_name(&attributes.user).is_some() {
            errors.insert(
                0,
                "node authorizer does not support user rule resolution".to_owned(),
            );
        }
        let of_resources: Vec<Value> = rules
            .iter()
            .filter(|rule| !rule.resources.is_empty())
            .map(|rule| json!(rule))
            .collect();
        let of_paths: Vec<Value> = rules
            .iter()
            .filter(|rule| !rule.non_resource_urls.is_empty())
            .map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}))
            .collect();
        review["status"] = json!({
            "resourceRules": of_resources,
            "nonResourceRules": of_paths,
            "incomplete": incomplete,
        });
        if !errors.is_empty() {
            review["status"]["evaluationError"] = errors.join(", ").into();
        }
        Ok(review)
    }
}

fn set_reason(status: &mut Value, reason: String) {
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
}

fn kind_of(resource: &str) -> &'static str {
    match resource {
        "selfsubjectrulesreviews" => "SelfSubjectRulesReview",
        "selfsubjectaccessreviews" => "SelfSubjectAccessReview",
        "localsubjectaccessreviews" => "LocalSubjectAccessReview",
        _ => "SubjectAccessReview",
    }
}

impl Connector for AccessReviews {
    fn connect(
        &self,
        attributes: Attributes,
        request: Request<Body>,
        reader: Arc<dyn Reader>,
    ) -> BoxFuture<'static, Result<Response<Body>, Status>> {
        let this = self.clone();
        Box::pin(async move {
            let kind = kind_of(&attributes.resource);
            let review = ephemeral::read(request, "authorization.k8s.io/v1", kind).await?;
            let review = this.review(&attributes, review, &*reader)?;
            Ok(ephemeral::created(&review))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::AUTHENTICATED_GROUP;
    use crate::authz::rbac::GROUP as RBAC;
    use crate::fake_reader::FakeReader;

    fn reviews() -> (AccessReviews, FakeReader) {
        let reader = FakeReader::default();
        reader.put(
            RBAC,
            "clusterroles",
            json!({
                "metadata": {"name": "reader"},
                "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]
            }),
        );
        reader.put(
            RBAC,
            "rolebindings",
            json!({
                "metadata": {"name": "b", "namespace": "a"},
                "roleRef": {"kind": "ClusterRole", "name": "reader"},
                "subjects": [{"kind": "User", "name": "u"}]
            }),
        );
        let rbac = Arc::new(Rbac::default());
        (AccessReviews::new(vec![rbac.clone()], rbac), reader)
    }

    fn ask(resource: &str, user: UserInfo, namespace: &str, spec: Value) -> Result<Value, Status> {
        let (reviews, reader) = reviews();
        let attributes = Attributes {
            user,
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            ..Attributes::default()
        };
        let review = json!({"kind": kind_of(resource), "spec": spec});
        reviews
            .review(&attributes, review, &reader)
            .map(|r| r["status"].clone())
    }

    #[test]
    fn can_i() {
        let pods = |namespace: &str| json!({"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": namespace}});
        let user = || UserInfo::new("u", &[AUTHENTICATED_GROUP]);
        assert_eq!(
            ask("selfsubjectaccessreviews", user(), "", pods("a")).unwrap(),
            json!({"allowed": true, "reason": r#"RBAC: allowed by RoleBinding "b/a" of ClusterRole "reader" to User "u""#})
        );
        assert_eq!(
            ask("selfsubjectaccessreviews", user(), "", pods("b")).unwrap(),
            json!({"allowed": false})
        );
        let root = UserInfo::new("root", &["system:masters"]);
        assert_eq!(
            ask("selfsubjectaccessreviews", root, "", pods("b")).unwrap(),
            json!({"allowed": true})
        );
        let mut about = pods("a");
        about["user"] = "u".into();
        assert_eq!(
            ask("subjectaccessreviews", user(), "", about.clone()).unwrap()["allowed"],
            true
        );
        assert_eq!(
            ask("localsubjectaccessreviews", user(), "a", about.clone()).unwrap()["allowed"],
            true
        );
        assert_eq!(
            ask("localsubjectaccessreviews", user(), "b", about)
                .unwrap_err()
                .code,
            400
        );
    }

    #[test]
    fn malformed_questions_are_refused() {
        let none = ask("selfsubjectaccessreviews", UserInfo::default(), "", json!({})).unwrap_err();
        assert_eq!(none.code, 422);
        assert!(
            none.message
                .contains("exactly one of nonResourceAttributes or resourceAttributes")
        );
        let nobody = json!({"nonResourceAttributes": {"path": "/", "verb": "get"}});
        let nobody = ask("subjectaccessreviews", UserInfo::default(), "", nobody).unwrap_err();
        assert!(
            nobody
                .message
                .contains("at least one of user or group must be specified")
        );
    }

    #[test]
    fn rules_of_a_namespace() {
        let status = ask(
            "selfsubjectrulesreviews",
            UserInfo::new("u", &[]),
            "",
            json!({"namespace": "a"}),
        )
        .unwrap();
        assert_eq!(
            status["resourceRules"],
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])
        );
        assert_eq!(status["incomplete"], false);
        let node = UserInfo::new("system:node:n", &["system:nodes"]);
        let status = ask("selfsubjectrulesreviews", node, "", json!({"namespace": "a"})).unwrap();
        assert_eq!(status["incomplete"], true);
    }
}
