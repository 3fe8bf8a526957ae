//! Callers without credentials are `system:anonymous`; what they may do is for authorisation to say.
//! Upstream: `k8s.io/apiserver/pkg/authentication/request/anonymous`.

use crate::authz::UNAUTHENTICATED_GROUP;
use crate::plugin::{Authenticator, Reader};
use crate::request::UserInfo;
use coracle_meta::Status;
use http::HeaderMap;
use rustls::pki_types::CertificateDer;

/// The name of callers without credentials.
pub const ANONYMOUS: &str = "system:anonymous";

/// Accepts everyone. Must be the last in the list.
pub struct Anonymous;

impl Authenticator for Anonymous {
    fn authenticate(
        &self,
        _headers: &HeaderMap,
        _peer: &[CertificateDer<'static>],
        _reader: &dyn Reader,
    ) -> Result<Option<UserInfo>, Status> {
        Ok(Some(UserInfo::new(ANONYMOUS, &[UNAUTHENTICATED_GROUP])))
    }
}
