//! An API server alone, for trying stock clients against it:
//! `cargo run -p coracle-apiserver --example serve -- DIRECTORY [PORT]`, then `kubectl --kubeconfig DIRECTORY/kubeconfig`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_apiserver::authn::ClientCertificate;
use coracle_apiserver::{ApiServer, Config};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: serve DIRECTORY [PORT]")?);
    let port: u16 = arguments.next().unwrap_or_else(|| "6443".into()).parse()?;
    std::fs::create_dir_all(&directory)?;

    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let server_key = KeyPair::generate()?;
    let server = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?
        .signed_by(&server_key, &issuer)?;
    let client_key = KeyPair::generate()?;
    let mut client = CertificateParams::new(Vec::new())?;
    client.distinguished_name.push(DnType::CommonName, "admin");
    client
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = client.signed_by(&client_key, &issuer)?;

    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: serve\nclusters:\n- name: serve\n  cluster:\n    server: https://127.0.0.1:{port}\n    \
         certificate-authority-data: {}\ncontexts:\n- name: serve\n  context: {{cluster: serve, user: admin}}\nusers:\n- name: admin\n  user:\n    \
         client-certificate-data: {}\n    client-key-data: {}\n",
        STANDARD.encode(ca_certificate.pem()),
        STANDARD.encode(client.pem()),
        STANDARD.encode(client_key.serialize_pem()),
    );
    std::fs::write(directory.join("kubeconfig"), kubeconfig)?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_certificate.der().clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let key = PrivateKeyDer::try_from(server_key.serialize_der())?;
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der().clone()], key)?;

    let store = coracle_apiserver::open_store(&directory.join("store.redb"))?;
    let config = Config {
        authenticators: vec![Arc::new(ClientCertificate)],
        ..Config::default()
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("serving on {}", listener.local_addr()?);
    let shutdown = async {
        // Without a handler for signals, only a kill ends the server.
        let _ = tokio::signal::ctrl_c().await;
    };
    Arc::new(ApiServer::new(config, store.clone()))
        .serve(listener, tls, shutdown)
        .await;
    store.close();
    Ok(())
}
