//! GET and LIST. Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/get.go`, `k8s.io/apiserver/pkg/storage`.

use super::Registry;
use super::call::Call;
use super::object::store_resource;
use super::options::{ListOptions, VersionMatch, parse_version};
use super::render::List;
use super::selection::Selection;
use crate::request::query_value;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_meta::{Status, StatusCause, StatusDetails};
use coracle_store::{Expired, Object};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can \
     start a new list without the continue parameter, or use the continue token in this response to retrieve the \
     remainder of the results. Continuing with the provided token results in an inconsistent list - objects that \
     were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// What a `continue` token says. Upstream's form, so that it looks familiar; clients must not read it.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the first page; -1 is whatever is now.
    rv: i64,
    /// `NAMESPACE/NAME` of the last object returned.
    start: String,
}

impl Registry {
    /// The object that the request names.
    pub(crate) fn get(&self, call: &Call) -> Result<Arc<Object>, Status> {
        if let Some(text) = query_value(&call.uri, "resourceVersion").filter(|text| !text.is_empty()) {
            self.check_not_future(parse_version(&text)?)?;
        }
        self.find(call)
    }

    /// The object that the request names, for subresources.
    pub(crate) fn find(&self, call: &Call) -> Result<Arc<Object>, Status> {
        let (namespace, name) = (call.namespace(), &call.attributes.name);
        self.store
            .get(&store_resource(call.resource), namespace, name)
            .ok_or_else(|| call.not_found())
    }

    /// Everything there is has been written here: a revision that is not there yet is from somewhere else.
    fn check_not_future(&self, asked: u64) -> Result<u64, Status> {
        let current = self.store.revision();
        if asked <= current {
            return Ok(asked);
        }
        let text = format!("Too large resource version: {asked}, current: {current}");
        let mut status = Status::failure(504, "Timeout", format!("Timeout: {text}"));
        status.details = Some(StatusDetails {
            causes: vec![StatusCause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            }],
            retry_after_seconds: 1,
            ..StatusDetails::default()
        });
        Err(status)
    }

    /// The objects that the request selects.
    pub(crate) fn list(&self, call: &Call, options: &ListOptions) -> Result<List, Status> {
        let selection = Selection::new(call, options)?;
        let resource = store_resource(call.resource);
        let mut at = None;
        if let Some(version) = options.resource_version.filter(|version| *version > 0) {
            self.check_not_future(version)?;
            at = (options.version_match == Some(VersionMatch::Exact)).then_some(version);
        }
        let mut after = None;
        if let Some(token) = &options.continue_token {
            let token = decode_token(token)?;
            let (namespace, name) = token.start.split_once('/').unwrap_or(("", &token.start));
            after = Some((namespace.to_owned(), name.to_owned()));
            at = u64::try_from(token.rv).ok();
        }
        let start = after
            .as_ref()
            .map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let listing = self
            .store
            .list(&resource, selection.namespace.as_deref(), start, at)
            .map_err(|expired| list_expired(expired, start))?;
        let mut selected = listing.objects;
        if !selection.is_whole() {
            selected.retain(|object| selection.matches(object));
        }
        let mut list = List {
            objects: selected,
            revision: listing.revision,
            continue_token: None,
            remaining: None,
        };
        if let Some(limit) = options.limit.filter(|limit| *limit < list.objects.len()) {
            // Upstream counts the rest only where it need not look at it.
            list.remaining = selection.is_whole().then(|| list.objects.len() - limit);
            list.objects.truncate(limit);
            list.continue_token = list.objects.last().map(|last| {
                encode_token(
                    i64::try_from(list.revision).unwrap_or(i64::MAX),
                    last.namespace(),
                    last.name(),
                )
            });
        }
        Ok(list)
    }
}

fn encode_token(revision: i64, namespace: &str, name: &str) -> String {
    let token = Token {
        v: "meta.k8s.io/v1".into(),
        rv: revision,
        start: format!("{namespace}/{name}"),
    };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("strings and a number"))
}

fn decode_token(text: &str) -> Result<Token, Status> {
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Token>(&bytes).ok())
        .filter(|token| token.v == "meta.k8s.io/v1")
        .ok_or_else(|| Status::bad_request("continue key is not valid"))
}

fn list_expired(expired: Expired, start: Option<(&str, &str)>) -> Status {
    match start {
        Some((namespace, name)) => {
            let mut status = Status::expired(EXPIRED);
            status
                .metadata
                .insert("continue".into(), encode_token(-1, namespace, name).into());
            status
        }
        None => Status::expired(format!(
            "The resourceVersion for the provided list is too old. ({} < {})",
            expired.asked, expired.oldest
        )),
    }
}
