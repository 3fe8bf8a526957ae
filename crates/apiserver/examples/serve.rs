//! An API server alone, for trying stock clients against it:
//! `cargo run -p coracle-apiserver --example serve -- DIRECTORY [PORT]`, then `kubectl --kubeconfig DIRECTORY/kubeconfig`.

#[path = "../tests/support/mod.rs"]
mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_apiserver::authn::ClientCertificate;
use coracle_apiserver::{ApiServer, Config};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use support::Certificates;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: serve DIRECTORY [PORT]")?);
    let port: u16 = arguments.next().unwrap_or_else(|| "6443".into()).parse()?;
    std::fs::create_dir_all(&directory)?;
    let certificates = Certificates::generate()?;
    let kubeconfig = format!(
        "apiVersion: v1
kind: Config
current-context: serve
clusters:
- name: serve
  cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority-data: {ca}}}
contexts:
- name: serve
  context: {{cluster: serve, user: admin}}
users:
- name: admin
  user: {{client-certificate-data: {client}, client-key-data: {key}}}
",
        ca = STANDARD.encode(certificates.ca.pem()),
        client = STANDARD.encode(certificates.client.pem()),
        key = STANDARD.encode(certificates.client_key.serialize_pem()),
    );
    std::fs::write(directory.join("kubeconfig"), kubeconfig)?;

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
    let server = Arc::new(ApiServer::new(config, store.clone()));
    server.serve(listener, certificates.tls, shutdown).await;
    store.close();
    Ok(())
}
