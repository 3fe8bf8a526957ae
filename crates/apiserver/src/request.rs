//! Who asks for what: the caller's identity and the attributes of a request, read from its method and path.
//! Upstream: `k8s.io/apiserver/pkg/endpoints/request`, `…/authorization/authorizer`, `…/authentication/user`.

use bytes::Bytes;
use coracle_meta::GroupResource;
use http::{Method, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::error::Error;

/// The body of every HTTP seam.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// An authenticated caller. Upstream: `user.Info`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name, such as `system:node:a`.
    pub name: String,
    /// Identity that outlives a reuse of the name; empty where there is none.
    pub uid: String,
    /// Groups, such as `system:masters`.
    pub groups: Vec<String>,
    /// What the authenticator knows beyond that.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user of these groups.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        Self {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// Whether the user is in this group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What a request wants to do. Upstream: `RequestInfo` and `authorizer.Attributes`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The caller.
    pub user: UserInfo,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for non-resource
    /// requests the HTTP method in lower case.
    pub verb: String,
    /// API group, empty for core.
    pub api_group: String,
    /// API version, such as `v1`.
    pub api_version: String,
    /// Lower-case plural, such as `pods`.
    pub resource: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
    /// Namespace; empty for cluster-scoped resources and for lists over all namespaces.
    pub namespace: String,
    /// Object name; empty for collections and creates.
    pub name: String,
    /// What follows the subresource: the path given to `proxy`, without the leading slash.
    pub subpath: String,
    /// The URL path.
    pub path: String,
    /// Whether the path names an API resource.
    pub is_resource_request: bool,
    /// The unparsed `labelSelector` of a list, watch or deletecollection.
    pub label_selector: String,
    /// The unparsed `fieldSelector` of a list, watch or deletecollection.
    pub field_selector: String,
}

impl Attributes {
    /// Reads method and URL. Never fails: what is no resource path is a non-resource request.
    pub fn parse(user: UserInfo, method: &Method, uri: &Uri) -> Self {
        let mut info = Self {
            user,
            verb: method.as_str().to_ascii_lowercase(),
            path: uri.path().to_owned(),
            ..Self::default()
        };
        let decoded: Vec<String> = uri
            .path()
            .trim_matches('/')
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let mut parts: &[String] = &decoded;
        if parts.len() < 3 {
            return info;
        }
        match parts[0].as_str() {
            "api" => parts = &parts[1..],
            "apis" if parts.len() >= 4 => {
                info.api_group.clone_from(&parts[1]);
                parts = &parts[2..];
            }
            _ => return info,
        }
        info.is_resource_request = true;
        info.api_version.clone_from(&parts[0]);
        parts = &parts[1..];

        // `/api/v1/watch/pods` is the deprecated spelling of `?watch=true`.
        let watch_prefix = parts[0] == "watch" && parts.len() > 1;
        if watch_prefix {
            parts = &parts[1..];
        }
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();

        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace.clone_from(&parts[1]);
            // `/namespaces/a/status` is the namespace's own subresource, `/namespaces/a/pods` is not.
            if parts.len() > 2 && !matches!(parts[2].as_str(), "status" | "finalize") {
                parts = &parts[2..];
            }
        }
        info.resource.clone_from(&parts[0]);
        if let Some(name) = parts.get(1) {
            info.name.clone_from(name);
        }
        if let Some(subresource) = parts.get(2) {
            info.subresource.clone_from(subresource);
            info.subpath = parts[3..].join("/");
        }

        let query = |name: &str| query_value(uri, name);
        if info.name.is_empty() && info.verb == "get" {
            let watch =
                query("watch").is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"));
            info.verb = if watch { "watch" } else { "list" }.to_owned();
        }
        if watch_prefix && matches!(info.verb.as_str(), "get" | "list") {
            info.verb = "watch".to_owned();
        }
        if info.name.is_empty() && info.verb == "delete" {
            info.verb = "deletecollection".to_owned();
        }
        if matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
            info.label_selector = query("labelSelector").unwrap_or_default();
            info.field_selector = query("fieldSelector").unwrap_or_default();
        }
        // A list of one name is a request for that name: what lets a role restricted to it allow the list.
        if info.name.is_empty()
            && matches!(info.verb.as_str(), "list" | "watch")
            && let Some(name) = info.field_selector.split(',').find_map(exact_name)
        {
            info.name = name.to_owned();
        }
        info
    }

    /// The resource that is asked for.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.api_group.clone(), self.resource.clone())
    }

    /// The wire's `apiVersion`.
    pub fn group_version(&self) -> String {
        coracle_meta::gvk::join_api_version(&self.api_group, &self.api_version)
    }
}

fn exact_name(term: &str) -> Option<&str> {
    let name = term.strip_prefix("metadata.name=")?;
    let name = name.strip_prefix('=').unwrap_or(name);
    (!name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%'])).then_some(name)
}

/// The first value of a query parameter, decoded.
pub fn query_value(uri: &Uri, name: &str) -> Option<String> {
    query_pairs(uri)
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

/// All query parameters, decoded, in order.
pub fn query_pairs(uri: &Uri) -> impl Iterator<Item = (String, String)> + '_ {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    uri.query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, uri: &str) -> Attributes {
        Attributes::parse(UserInfo::default(), &method, &uri.parse().unwrap())
    }

    #[test]
    fn resource_paths() {
        let cases = [
            ("GET", "/api/v1/pods", "list", "", "", "pods", "", ""),
            ("GET", "/api/v1/pods?watch=1", "watch", "", "", "pods", "", ""),
            ("GET", "/api/v1/watch/pods", "watch", "", "", "pods", "", ""),
            (
                "GET",
                "/api/v1/namespaces/a",
                "get",
                "",
                "a",
                "namespaces",
                "a",
                "",
            ),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "update",
                "",
                "a",
                "namespaces",
                "a",
                "finalize",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/pods",
                "deletecollection",
                "",
                "a",
                "pods",
                "",
                "",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods/b/exec?command=x",
                "create",
                "",
                "a",
                "pods",
                "b",
                "exec",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/status",
                "patch",
                "apps",
                "a",
                "deployments",
                "d",
                "status",
            ),
            (
                "GET",
                "/api/v1/pods?fieldSelector=metadata.name%3Dx",
                "list",
                "",
                "",
                "pods",
                "x",
                "",
            ),
            (
                "GET",
                "/api/v1/nodes/n/proxy/a/b",
                "get",
                "",
                "",
                "nodes",
                "n",
                "proxy",
            ),
        ];
        for (method, uri, verb, group, namespace, resource, name, subresource) in cases {
            let got = parse(Method::from_bytes(method.as_bytes()).unwrap(), uri);
            assert!(got.is_resource_request, "{uri}");
            assert_eq!(
                (verb, group, namespace, resource, name, subresource),
                (
                    got.verb.as_str(),
                    got.api_group.as_str(),
                    got.namespace.as_str(),
                    got.resource.as_str(),
                    got.name.as_str(),
                    got.subresource.as_str()
                ),
                "{method} {uri}"
            );
        }
        assert_eq!(parse(Method::GET, "/api/v1/nodes/n/proxy/a/b").subpath, "a/b");
    }

    #[test]
    fn other_paths_are_not_resources() {
        for uri in [
            "/",
            "/api",
            "/apis",
            "/api/v1",
            "/apis/apps",
            "/apis/apps/v1",
            "/healthz",
            "/openapi/v3/api/v1",
        ] {
            let got = parse(Method::GET, uri);
            assert!(!got.is_resource_request, "{uri}");
            assert_eq!(got.verb, "get");
            assert_eq!(got.path, uri);
        }
    }
}
