//! Tokens `ID.SECRET` that are stored as Secrets `bootstrap-token-ID` in `kube-system`: what `kubeadm` makes for
//! nodes that join. Upstream: `plugin/pkg/auth/authenticator/token/bootstrap`.

use super::token::{TokenSource, Verified, same_secret};
use crate::plugin::Reader;
use crate::request::UserInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_meta::GroupResource;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;

/// Knows bootstrap tokens.
pub struct BootstrapTokens;

fn is_part(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

fn data(secret: &Value, key: &str) -> Option<String> {
    let encoded = secret.str_at(&["data", key])?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

impl TokenSource for BootstrapTokens {
    fn verify(
        &self,
        token: &str,
        _audiences: &[String],
        reader: &dyn Reader,
        now: Timestamp,
    ) -> Result<Option<Verified>, String> {
        let Some((id, password)) = token.split_once('.') else {
            return Ok(None);
        };
        if !is_part(id, 6) || !is_part(password, 16) {
            return Ok(None);
        }
        let name = format!("bootstrap-token-{id}");
        let Some(secret) = reader.get(&GroupResource::new("", "secrets"), "kube-system", &name) else {
            return Ok(None);
        };
        let stored = data(&secret, "token-secret").unwrap_or_default();
        let usable = !secret.is_terminating()
            && secret.str_at(&["type"]) == Some("bootstrap.kubernetes.io/token")
            && data(&secret, "token-id").as_deref() == Some(id)
            && data(&secret, "usage-bootstrap-authentication").as_deref() == Some("true")
            && same_secret(&stored, password);
        if !usable {
            return Ok(None);
        }
        if let Some(expires) = data(&secret, "expiration")
            && !expires.parse::<Timestamp>().is_ok_and(|at| at > now)
        {
            return Ok(None);
        }
        let mut user = UserInfo::new(format!("system:bootstrap:{id}"), &["system:bootstrappers"]);
        let more = data(&secret, "auth-extra-groups").unwrap_or_default();
        let more = more.split(',').map(str::trim);
        user.groups.extend(
            more.filter(|g| g.starts_with("system:bootstrappers:"))
                .map(str::to_owned),
        );
        Ok(Some(Verified {
            user,
            audiences: Vec::new(),
        }))
    }
}
