//! `Impersonate-User` and friends: acting as somebody else, if the caller may impersonate each part of them.
//! Upstream: `k8s.io/apiserver/pkg/endpoints/filters/impersonation`.

use super::anonymous::ANONYMOUS;
use crate::authz::{AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP, authorize, forbidden};
use crate::plugin::{Authorizer, Decision, Reader};
use crate::request::{Attributes, UserInfo};
use crate::serviceaccounts;
use coracle_meta::Status;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The user that the request is to be made as: `caller`, unless the headers ask for another.
pub fn impersonate(
    caller: UserInfo,
    headers: &HeaderMap,
    authorizers: &[Arc<dyn Authorizer>],
    reader: &dyn Reader,
) -> Result<UserInfo, Status> {
    let Some(wanted) = requested(headers)? else {
        return Ok(caller);
    };
    for attributes in questions(&caller, &wanted) {
        match authorize(authorizers, &attributes, reader) {
            Decision::Allow => {}
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                return Err(forbidden(&attributes, &reason));
            }
        }
    }
    Ok(completed(wanted))
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = String> + use<'a> {
    headers
        .get_all(name)
        .iter()
        .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
}

/// What the headers ask for; groups are exactly those named.
fn requested(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let mut wanted = UserInfo {
        name: values(headers, USER).next().unwrap_or_default(),
        uid: values(headers, UID).next().unwrap_or_default(),
        groups: values(headers, GROUP).collect(),
        ..UserInfo::default()
    };
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            wanted.extra.insert(key, values(headers, name.as_str()).collect());
        }
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == UserInfo::default() {
        return Ok(None);
    }
    Err(Status::bad_request(
        "requested groups, uid or extra without impersonating a user",
    ))
}

/// One question to the authorisers for each part of the wanted user.
fn questions(caller: &UserInfo, wanted: &UserInfo) -> Vec<Attributes> {
    let question = |group: &str, resource: &str, name: &str| Attributes {
        user: caller.clone(),
        verb: "impersonate".to_owned(),
        api_group: group.to_owned(),
        api_version: "v1".to_owned(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        is_resource_request: true,
        ..Attributes::default()
    };
    let authentication = "authentication.k8s.io";
    let mut all = Vec::new();
    match serviceaccounts::split_username(&wanted.name) {
        Some((namespace, name)) => all.push(Attributes {
            namespace: namespace.to_owned(),
            ..question("", "serviceaccounts", name)
        }),
        None => all.push(question("", "users", &wanted.name)),
    }
    all.extend(wanted.groups.iter().map(|group| question("", "groups", group)));
    for (key, values) in &wanted.extra {
        all.extend(values.iter().map(|value| Attributes {
            subresource: key.clone(),
            ..question(authentication, "userextras", value)
        }));
    }
    if !wanted.uid.is_empty() {
        all.push(question(authentication, "uids", &wanted.uid));
    }
    all
}

/// Adds the groups that follow from the name where none are named.
fn completed(mut user: UserInfo) -> UserInfo {
    if user.groups.is_empty()
        && let Some((namespace, _)) = serviceaccounts::split_username(&user.name)
    {
        user.groups = serviceaccounts::groups(namespace).into();
    }
    if user.name == ANONYMOUS {
        if !user.in_group(UNAUTHENTICATED_GROUP) {
            user.groups.push(UNAUTHENTICATED_GROUP.to_owned());
        }
    } else if !user.in_group(AUTHENTICATED_GROUP) && !user.in_group(UNAUTHENTICATED_GROUP) {
        user.groups.push(AUTHENTICATED_GROUP.to_owned());
    }
    user
}

#[cfg(test)]
mod tests;
