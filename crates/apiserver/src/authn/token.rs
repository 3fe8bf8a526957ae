//! Bearer tokens. Upstream: `k8s.io/apiserver/pkg/authentication/request/bearertoken`, `…/token/tokenfile`.

use super::authenticated;
use crate::plugin::{Authenticator, Reader};
use crate::request::UserInfo;
use crate::serviceaccounts::{Claims, Keys};
use coracle_meta::Status;
use http::{HeaderMap, header};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A token that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub user: UserInfo,
    /// Those of the asked-for audiences that it is for; empty when the token knows no audiences.
    pub audiences: Vec<String>,
}

/// One kind of token.
pub trait TokenSource: Send + Sync {
    /// `Ok(None)` when the token is not of this kind; the error says what is wrong with one that is.
    /// `audiences` are those for which it must hold; empty means those of this API server.
    fn verify(
        &self,
        token: &str,
        audiences: &[String],
        reader: &dyn Reader,
        now: Timestamp,
    ) -> Result<Option<Verified>, String>;
}

/// Knows callers by the token in `Authorization: Bearer …`, or in the WebSocket protocol
/// `base64url.bearer.authorization.k8s.io.TOKEN`, which is how browsers must send it.
#[derive(Clone)]
pub struct BearerTokens {
    sources: Arc<[Box<dyn TokenSource>]>,
}

impl BearerTokens {
    /// Asks the sources in order.
    pub fn new(sources: Vec<Box<dyn TokenSource>>) -> Self {
        Self {
            sources: sources.into(),
        }
    }

    /// The first source that knows the token decides, but an error of an earlier one does not keep a later one from
    /// knowing it.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        reader: &dyn Reader,
        now: Timestamp,
    ) -> Result<Option<Verified>, String> {
        let mut errors = Vec::new();
        for source in &*self.sources {
            match source.verify(token, audiences, reader, now) {
                Ok(None) => {}
                Ok(Some(verified)) => {
                    return Ok(Some(Verified {
                        user: authenticated(verified.user),
                        ..verified
                    }));
                }
                Err(error) => errors.push(error),
            }
        }
        match &errors[..] {
            [] => Ok(None),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

impl Authenticator for BearerTokens {
    fn authenticate(
        &self,
        headers: &HeaderMap,
        _peer: &[CertificateDer<'static>],
        reader: &dyn Reader,
    ) -> Result<Option<UserInfo>, Status> {
        let Some(token) = bearer_token(headers) else {
            return Ok(None);
        };
        match self.verify(&token, &[], reader, Timestamp::now()) {
            Ok(Some(verified)) => Ok(Some(verified.user)),
            Ok(None) => Err(Status::unauthorized()),
            Err(error) => {
                tracing::debug!(%error, "bearer token refused");
                Err(Status::unauthorized())
            }
        }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<String> {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| {
            let encoded = protocol
                .trim()
                .strip_prefix("base64url.bearer.authorization.k8s.io.")?;
            String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
        })
}

/// Compares digests, so that the time taken says nothing about the secret.
pub(super) fn same_secret(a: &str, b: &str) -> bool {
    Sha256::digest(a) == Sha256::digest(b)
}

/// Tokens from the configuration.
pub struct StaticTokens(Vec<(String, UserInfo)>);

impl StaticTokens {
    /// Each token with its user.
    pub fn new(tokens: Vec<(String, UserInfo)>) -> Self {
        Self(tokens)
    }
}

impl TokenSource for StaticTokens {
    fn verify(
        &self,
        token: &str,
        _audiences: &[String],
        _reader: &dyn Reader,
        _now: Timestamp,
    ) -> Result<Option<Verified>, String> {
        let found = self.0.iter().find(|(known, _)| same_secret(known, token));
        Ok(found.map(|(_, user)| Verified {
            user: user.clone(),
            audiences: Vec::new(),
        }))
    }
}

/// Tokens that this cluster has issued to its service accounts.
pub struct ServiceAccountTokens {
    keys: Arc<Keys>,
    issuers: Vec<String>,
    audiences: Vec<String>,
}

impl ServiceAccountTokens {
    /// `issuers` are accepted, the first is the present one; `audiences` are those of this API server.
    pub fn new(keys: Arc<Keys>, issuers: Vec<String>, audiences: Vec<String>) -> Self {
        Self {
            keys,
            issuers,
            audiences,
        }
    }
}

impl TokenSource for ServiceAccountTokens {
    fn verify(
        &self,
        token: &str,
        audiences: &[String],
        reader: &dyn Reader,
        now: Timestamp,
    ) -> Result<Option<Verified>, String> {
        let Some(claims) = self.keys.verify::<Claims>(token) else {
            return Ok(None);
        };
        if !self.issuers.contains(&claims.iss) {
            return Err(format!("token issuer {:?} is invalid", claims.iss));
        }
        let wanted = if audiences.is_empty() {
            &self.audiences
        } else {
            audiences
        };
        let shared: Vec<String> = claims
            .aud
            .iter()
            .filter(|a| wanted.contains(a))
            .cloned()
            .collect();
        if shared.is_empty() {
            return Err(format!(
                "token audiences {:?} is invalid for the target audiences {wanted:?}",
                claims.aud
            ));
        }
        claims.check(reader, now)?;
        Ok(Some(Verified {
            user: claims.user(),
            audiences: shared,
        }))
    }
}

#[cfg(test)]
mod tests;
