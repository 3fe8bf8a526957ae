//! Service account tokens: keys, claims and the `token` subresource that issues them.
//! Upstream: `pkg/serviceaccount`, `pkg/registry/core/serviceaccount/storage/token.go`.

pub mod claims;
pub mod keys;
pub mod openid;
pub mod token;

pub use claims::{Bound, Claims, ObjectRef};
pub use keys::{Keys, KeysError};
pub use token::TokenRequests;

/// `system:serviceaccount:NAMESPACE:NAME`.
pub fn username(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// The namespace and name in a service account's user name.
pub fn split_username(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The groups that every service account of a namespace is in.
pub fn groups(namespace: &str) -> [String; 2] {
    [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ]
}
