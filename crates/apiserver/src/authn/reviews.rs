//! `TokenReview` and `SelfSubjectReview` (`kubectl auth whoami`).
//! Upstream: `pkg/registry/authentication/{tokenreview,selfsubjectreview}`.

use super::token::BearerTokens;
use crate::ephemeral;
use crate::plugin::{Connector, Reader};
use crate::request::{Attributes, Body, UserInfo};
use coracle_meta::Status;
use coracle_meta::object::ObjectExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A user as `authentication.k8s.io/v1` UserInfo.
pub fn user_to_json(user: &UserInfo) -> Value {
    let mut out = Map::new();
    out.insert("username".to_owned(), user.name.clone().into());
    if !user.uid.is_empty() {
        out.insert("uid".to_owned(), user.uid.clone().into());
    }
    if !user.groups.is_empty() {
        out.insert("groups".to_owned(), user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        out.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(out)
}

/// Answers whose token it is.
pub struct TokenReviews {
    tokens: BearerTokens,
}

impl TokenReviews {
    /// Reviews the tokens that these sources know.
    pub fn new(tokens: BearerTokens) -> Self {
        Self { tokens }
    }
}

/// Completes a TokenReview.
pub fn review_token(
    tokens: &BearerTokens,
    mut review: Value,
    reader: &dyn Reader,
    now: Timestamp,
) -> Result<Value, Status> {
    let token = review.str_at(&["spec", "token"]).unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences: Vec<String> = review
        .at(&["spec", "audiences"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let status = match tokens.verify(token, &audiences, reader, now) {
        Ok(Some(verified)) => {
            let mut status = json!({"authenticated": true, "user": user_to_json(&verified.user)});
            if !verified.audiences.is_empty() {
                status["audiences"] = json!(verified.audiences);
            }
            status
        }
        Ok(None) => json!({"user": {}}),
        Err(error) => json!({"user": {}, "error": error}),
    };
    review["status"] = status;
    Ok(review)
}

impl Connector for TokenReviews {
    fn connect(
        &self,
        _attributes: Attributes,
        request: Request<Body>,
        reader: Arc<dyn Reader>,
    ) -> BoxFuture<'static, Result<Response<Body>, Status>> {
        let tokens = self.tokens.clone();
        Box::pin(async move {
            let review = ephemeral::read(request, "authentication.k8s.io/v1", "TokenReview").await?;
            let review = review_token(&tokens, review, &*reader, Timestamp::now())?;
            Ok(ephemeral::created(&review))
        })
    }
}

/// Answers who the caller is.
pub struct SelfSubjectReviews;

impl Connector for SelfSubjectReviews {
    fn connect(
        &self,
        attributes: Attributes,
        request: Request<Body>,
        _reader: Arc<dyn Reader>,
    ) -> BoxFuture<'static, Result<Response<Body>, Status>> {
        Box::pin(async move {
            let mut review =
                ephemeral::read(request, "authentication.k8s.io/v1", "SelfSubjectReview").await?;
            review["status"] = json!({"userInfo": user_to_json(&attributes.user)});
            Ok(ephemeral::created(&review))
        })
    }
}
