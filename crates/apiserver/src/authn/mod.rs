//! Authentication: who calls. Client certificates, then bearer tokens, then anonymous.
//! Upstream: `k8s.io/apiserver/pkg/authentication`, `pkg/kubeapiserver/authenticator`.

pub mod anonymous;
pub mod bootstrap_token;
pub mod client_certificate;
pub mod impersonation;
pub mod reviews;
pub mod token;

pub use anonymous::Anonymous;
pub use bootstrap_token::BootstrapTokens;
pub use client_certificate::ClientCertificate;
pub use impersonation::impersonate;
pub use reviews::{SelfSubjectReviews, TokenReviews};
pub use token::{BearerTokens, ServiceAccountTokens, StaticTokens, TokenSource, Verified};

use crate::authz::{AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP};
use crate::request::UserInfo;

/// The extra key under which the credential itself is named.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Puts a user who has shown who they are into `system:authenticated`.
fn authenticated(mut user: UserInfo) -> UserInfo {
    if !user.in_group(AUTHENTICATED_GROUP) && !user.in_group(UNAUTHENTICATED_GROUP) {
        user.groups.push(AUTHENTICATED_GROUP.to_owned());
    }
    user
}
