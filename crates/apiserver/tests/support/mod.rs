//! Throw-away certificates for an API server on loopback.

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use std::error::Error;
use std::sync::Arc;

/// A CA, the server's side of TLS, and an administrator's certificate.
pub struct Certificates {
    /// The CA's certificate.
    pub ca: rcgen::Certificate,
    /// The administrator's certificate.
    pub client: rcgen::Certificate,
    /// Its key.
    pub client_key: KeyPair,
    /// For `ApiServer::serve`.
    pub tls: rustls::ServerConfig,
}

impl Certificates {
    /// Makes new ones for `localhost` and 127.0.0.1.
    pub fn generate() -> Result<Self, Box<dyn Error>> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name.push(DnType::CommonName, "ca");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);

        let server_key = KeyPair::generate()?;
        let names = vec!["localhost".into(), "127.0.0.1".into()];
        let server = CertificateParams::new(names)?.signed_by(&server_key, &issuer)?;
        let client_key = KeyPair::generate()?;
        let mut client = CertificateParams::new(Vec::new())?;
        client.distinguished_name.push(DnType::CommonName, "admin");
        client
            .distinguished_name
            .push(DnType::OrganizationName, "system:masters");
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client = client.signed_by(&client_key, &issuer)?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca_certificate.der().clone())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()?;
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.der().clone()], key(&server_key)?)?;
        Ok(Self {
            ca: ca_certificate,
            client,
            client_key,
            tls,
        })
    }
}

/// A key as TLS takes it.
pub fn key(key: &KeyPair) -> Result<PrivateKeyDer<'static>, Box<dyn Error>> {
    Ok(PrivateKeyDer::try_from(key.serialize_der())?)
}
