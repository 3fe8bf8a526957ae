//! URLs and options of API requests. Upstream: `k8s.io/client-go/rest`, `metav1.ListOptions`.

use coracle_meta::GroupVersionResource;
use coracle_reconcile::{PatchType, Precondition, Propagation};
use serde_json::{Value, json};

/// The path of a collection, an object or a subresource. Empty parts are left out: no namespace for
/// cluster-scoped kinds and lists over all namespaces, no name for collections.
pub fn path(resource: &GroupVersionResource, namespace: &str, name: &str, subresource: &str) -> String {
    let mut path = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    if !namespace.is_empty() {
        path.push_str("/namespaces/");
        push_encoded(&mut path, namespace);
    }
    for part in [&resource.resource, name, subresource] {
        if !part.is_empty() {
            path.push('/');
            push_encoded(&mut path, part);
        }
    }
    path
}

/// A query string built one pair at a time.
#[derive(Debug, Default, Clone)]
pub struct Query(String);

impl Query {
    /// Adds a pair; an empty value is left out.
    pub fn pair(mut self, name: &str, value: &str) -> Self {
        if !value.is_empty() {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(name);
            self.0.push('=');
            push_encoded(&mut self.0, value);
        }
        self
    }

    /// The query with its question mark, or nothing.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn push_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// What to list or watch of a collection.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ListOptions {
    /// `app=db,tier!=cache`, or empty.
    pub label_selector: String,
    /// `spec.nodeName=a`, or empty.
    pub field_selector: String,
    /// For lists: at least this old (`0` is any). For watches: changes after it.
    pub resource_version: String,
    /// At most so many objects, 0 for all.
    pub limit: u32,
    /// The token of the page before.
    pub continue_token: String,
}

impl ListOptions {
    pub(crate) fn query(&self) -> Query {
        let limit = if self.limit == 0 {
            String::new()
        } else {
            self.limit.to_string()
        };
        Query::default()
            .pair("labelSelector", &self.label_selector)
            .pair("fieldSelector", &self.field_selector)
            .pair("resourceVersion", &self.resource_version)
            .pair("limit", &limit)
            .pair("continue", &self.continue_token)
    }

    pub(crate) fn watch_query(&self) -> Query {
        self.query()
            .pair("watch", "true")
            .pair("allowWatchBookmarks", "true")
    }
}

/// How to delete.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct DeleteOptions {
    /// What must hold.
    pub precondition: Precondition,
    /// How dependents go; the kind's default if absent.
    pub propagation: Option<Propagation>,
    /// Seconds; the object's own if absent.
    pub grace_seconds: Option<i64>,
}

impl DeleteOptions {
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(uid) = &self.precondition.uid {
            body["preconditions"]["uid"] = json!(uid);
        }
        if let Some(version) = &self.precondition.resource_version {
            body["preconditions"]["resourceVersion"] = json!(version);
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = json!(match propagation {
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
                Propagation::Orphan => "Orphan",
            });
        }
        if let Some(seconds) = self.grace_seconds {
            body["gracePeriodSeconds"] = json!(seconds);
        }
        body
    }
}

/// The content type of a patch.
pub fn patch_content_type(patch_type: PatchType) -> &'static str {
    match patch_type {
        PatchType::Json => "application/json-patch+json",
        PatchType::Merge => "application/merge-patch+json",
        PatchType::Strategic => "application/strategic-merge-patch+json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_scope_and_group() {
        let pods = GroupVersionResource::new("", "v1", "pods");
        let sets = GroupVersionResource::new("apps", "v1", "replicasets");
        assert_eq!(path(&pods, "", "", ""), "/api/v1/pods");
        assert_eq!(
            path(&pods, "a", "b", "binding"),
            "/api/v1/namespaces/a/pods/b/binding"
        );
        assert_eq!(path(&sets, "a", "", ""), "/apis/apps/v1/namespaces/a/replicasets");
        let roles = GroupVersionResource::new("rbac.authorization.k8s.io", "v1", "clusterroles");
        assert_eq!(
            path(&roles, "", "system:node", ""),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode"
        );
    }

    #[test]
    fn queries_are_encoded_and_skip_what_is_unset() {
        let options = ListOptions {
            field_selector: "spec.nodeName=a b".into(),
            resource_version: "7".into(),
            ..ListOptions::default()
        };
        assert_eq!(
            options.watch_query().as_str(),
            "?fieldSelector=spec.nodeName%3Da%20b&resourceVersion=7&watch=true&allowWatchBookmarks=true"
        );
        assert_eq!(ListOptions::default().query().as_str(), "");
    }

    #[test]
    fn delete_options_carry_preconditions() {
        let options = DeleteOptions {
            precondition: Precondition {
                uid: Some("u".into()),
                resource_version: None,
            },
            propagation: Some(Propagation::Foreground),
            grace_seconds: Some(0),
        };
        assert_eq!(
            options.body(),
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "u"},
                   "propagationPolicy": "Foreground", "gracePeriodSeconds": 0})
        );
    }
}
