//! The subject of a client certificate: common name is the user, organisations are the groups. That the
//! cluster's CA has signed it was checked by TLS. Upstream: `k8s.io/apiserver/pkg/authentication/request/x509`.

use super::{CREDENTIAL_ID, authenticated};
use crate::plugin::{Authenticator, Reader};
use crate::request::UserInfo;
use coracle_meta::Status;
use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Knows callers by their client certificate.
pub struct ClientCertificate;

impl Authenticator for ClientCertificate {
    fn authenticate(
        &self,
        _headers: &HeaderMap,
        peer: &[CertificateDer<'static>],
        _reader: &dyn Reader,
    ) -> Result<Option<UserInfo>, Status> {
        Ok(peer.first().and_then(user_of).map(authenticated))
    }
}

/// The user in a certificate; `None` when its subject has no common name.
pub fn user_of(certificate: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups = subject
        .iter_organization()
        .filter_map(|o| o.as_str().ok().map(str::to_owned))
        .collect();
    let mut id = "X509SHA256=".to_owned();
    for byte in Sha256::digest(certificate) {
        write!(id, "{byte:02x}").expect("writing to a String cannot fail");
    }
    Some(UserInfo {
        name: name.to_owned(),
        groups,
        extra: [(CREDENTIAL_ID.to_owned(), vec![id])].into(),
        ..UserInfo::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn subject_becomes_user_and_groups() {
        let node = certificate(&[
            (DnType::CommonName, "system:node:a"),
            (DnType::OrganizationName, "system:nodes"),
        ]);
        let user = user_of(&node).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice()),
            ("system:node:a", &["system:nodes".to_owned()][..])
        );
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
        assert_eq!(user.extra[CREDENTIAL_ID][0].len(), "X509SHA256=".len() + 64);
    }

    #[test]
    fn no_common_name_is_no_user() {
        assert_eq!(user_of(&certificate(&[(DnType::OrganizationName, "x")])), None);
        assert_eq!(user_of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
