//! rustls configurations from PEM.

use crate::certificates::KeyPairPem;
use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

/// What a server wants of its clients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A client may have none: it shows a token, or is anonymous.
    Welcome,
    /// Without one of the cluster's authority there is no connection.
    Required,
}

/// A server with this certificate, that knows clients by certificates of `ca`.
pub fn server(pair: &KeyPairPem, ca: &str, clients: ClientCertificates) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider.clone());
    let builder = match clients {
        ClientCertificates::Welcome => builder.allow_unauthenticated(),
        ClientCertificates::Required => builder,
    };
    let (chain, key) = parse(pair)?;
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(builder.build().context("cannot use the cluster's authority")?)
        .with_single_cert(chain, key)?)
}

/// A client with this certificate, that trusts servers of `ca`.
pub fn client(pair: &KeyPairPem, ca: &str) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = parse(pair)?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(chain, key)?)
}

fn roots(ca: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.context("the authority's certificate is not PEM")?)?;
    }
    Ok(roots)
}

fn parse(pair: &KeyPairPem) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("a certificate is not PEM")?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).context("a key is not PEM")?;
    Ok((chain, key))
}
