//! Pulls from registries. Upstream counterpart: containerd's `core/remotes/docker`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{ImageIndexEntry, OciDescriptor, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use tokio::io::AsyncWriteExt;

use super::index::Record;
use super::layer;
use super::reference::{canonical, parse, repository, sha256_digits};
use super::{Credentials, Document, Image, ImageStore, PullConfig, PullProgress};
use crate::blocking::blocking;
use crate::{Error, Result};

/// Layers fetched at the same time, as containerd does.
const CONCURRENT: usize = 3;
/// A registry that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(30);

impl ImageStore {
    /// Pulls an image for this machine's architecture from its registry. When the future is dropped the pull ends; layers
    /// that were complete stay until the next clean-up.
    pub async fn pull(
        &self,
        name: &str,
        credentials: Option<Credentials>,
        config: &PullConfig,
        progress: impl Fn(PullProgress) + Send + Sync + 'static,
    ) -> Result<Image> {
        let reference = parse(name)?;
        let store = self.clone();
        let pulling = blocking(move || store.lock_shared()).await?;
        let client = client(&reference, config);
        let auth = match credentials {
            None => RegistryAuth::Anonymous,
            Some(Credentials::Basic { username, password }) => RegistryAuth::Basic(username, password),
            Some(Credentials::Bearer(token)) => RegistryAuth::Bearer(token),
        };
        let failed = |error: OciDistributionError| failure(&reference, error);
        let (manifest, digest, list_digest) = client
            .pull_image_manifest_and_list_digest(&reference, &auth)
            .await
            .map_err(failed)?;
        let mut document = Vec::new();
        client
            .pull_blob(&reference, &manifest.config, &mut document)
            .await
            .map_err(failed)?;
        let id = layer::digest(&document);
        if id != manifest.config.digest {
            return Err(Error::InvalidImage(format!(
                "config {} has the digest {id}",
                manifest.config.digest
            )));
        }
        let document = Document::parse(&document)?;
        if document.diff_ids.len() != manifest.layers.len() {
            return Err(Error::InvalidImage(
                "manifest and config differ in the number of layers".to_owned(),
            ));
        }
        let fetch = Fetch {
            store: self,
            client,
            reference: &reference,
            manifest: &manifest,
        };
        let layers = fetch.layers(&document.diff_ids, progress).await?;
        let size = manifest
            .layers
            .iter()
            .map(|layer| layer.size.unsigned_abs())
            .sum();
        let by_digest = reference.digest().is_some();
        let known = format!("{}@{}", repository(&reference), list_digest.unwrap_or(digest));
        let record = Record {
            references: if by_digest {
                Vec::new()
            } else {
                vec![canonical(&reference)]
            },
            digests: vec![known],
            config: document.config,
            layers,
            size,
        };
        let store = self.clone();
        blocking(move || {
            store.commit(vec![(id.clone(), record)])?;
            drop(pulling);
            store.collect_garbage()?;
            store.resolve(&id)?.ok_or(Error::ImageNotFound(id))
        })
        .await
    }
}

/// A pull under way.
struct Fetch<'a> {
    store: &'a ImageStore,
    client: Client,
    reference: &'a Reference,
    manifest: &'a OciImageManifest,
}

impl Fetch<'_> {
    /// Fetches the layers that are not present, several at a time, and unpacks them in their order.
    async fn layers(
        &self,
        diff_ids: &[String],
        progress: impl Fn(PullProgress) + Send + Sync + 'static,
    ) -> Result<Vec<String>> {
        let chain = layer::chain(diff_ids)?;
        let present = chain
            .iter()
            .take_while(|name| self.store.layer(name).is_dir())
            .count();
        let missing = &self.manifest.layers[present..];
        let total = missing.iter().map(|layer| layer.size.unsigned_abs()).sum();
        let received = Arc::new(AtomicU64::new(0));
        let progress = &progress;
        progress(PullProgress { received: 0, total });
        let scratch = self.store.scratch();
        let directory = tempfile::tempdir_in(&scratch).map_err(Error::io("make directory in", &scratch))?;
        let directory = directory.path();
        let mut all: Vec<BoxFuture<'_, Result<PathBuf>>> = Vec::with_capacity(missing.len());
        for (index, descriptor) in missing.iter().enumerate() {
            let (received, path) = (received.clone(), directory.join(index.to_string()));
            let download = async move {
                let arrived = |count: u64| {
                    let received = received.fetch_add(count, Ordering::Relaxed) + count;
                    progress(PullProgress { received, total });
                };
                self.download(descriptor, &path, arrived).await.map(|()| path)
            };
            // Boxed: the compiler cannot see that a stream of borrowing futures may move between threads.
            all.push(download.boxed());
        }
        let mut downloads = futures::stream::iter(all).buffered(CONCURRENT);
        let mut next = present;
        while let Some(path) = downloads.try_next().await? {
            let store = self.store.clone();
            let (chain, diff_id) = (chain[..=next].to_vec(), diff_ids[next].clone());
            let digest = self.manifest.layers[next].digest.clone();
            blocking(move || {
                let file = std::fs::File::open(&path).map_err(Error::io("open", &path))?;
                store.install(file, (Some(&digest), &diff_id), &chain)?;
                // Its directory goes too, but only with the last layer.
                std::fs::remove_file(&path).map_err(Error::io("remove", path))
            })
            .await?;
            next += 1;
        }
        Ok(chain)
    }

    async fn download(
        &self,
        descriptor: &OciDescriptor,
        path: &PathBuf,
        arrived: impl Fn(u64) + Send,
    ) -> Result<()> {
        sha256_digits(&descriptor.digest)?;
        let failed = |error: OciDistributionError| failure(self.reference, error);
        let mut stream = self
            .client
            .pull_blob_stream(self.reference, descriptor)
            .await
            .map_err(failed)?
            .stream;
        let mut file = tokio::fs::File::create(path)
            .await
            .map_err(Error::io("make", path))?;
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|error| failed(error.into()))?;
            file.write_all(&bytes).await.map_err(Error::io("write", path))?;
            arrived(bytes.len() as u64);
        }
        file.flush().await.map_err(Error::io("write", path))
    }
}

fn client(reference: &Reference, config: &PullConfig) -> Client {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing a race against another thread is fine: then there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let mut plain_http = config.plain_http.clone();
    if is_loopback(reference.registry()) {
        plain_http.push(reference.registry().to_owned());
    }
    Client::new(ClientConfig {
        protocol: ClientProtocol::HttpsExcept(plain_http),
        platform_resolver: Some(Box::new(for_this_machine)),
        read_timeout: Some(SILENCE),
        connect_timeout: Some(CONNECT),
        user_agent: concat!("coracle/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    })
}

fn for_this_machine(manifests: &[ImageIndexEntry]) -> Option<String> {
    let suits = |entry: &&ImageIndexEntry| {
        entry.platform.as_ref().is_some_and(|platform| {
            platform.os.to_string() == "linux" && platform.architecture.to_string() == super::architecture()
        })
    };
    manifests.iter().find(suits).map(|entry| entry.digest.clone())
}

/// Registries of this machine speak plain HTTP, as containerd and docker have it.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let address: Option<std::net::IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

/// Sorts a registry's errors into those kubelet tells apart.
fn failure(reference: &Reference, error: OciDistributionError) -> Error {
    let reference = canonical(reference);
    match &error {
        OciDistributionError::AuthenticationFailure(reason) => Error::Unauthorized {
            reference,
            reason: reason.clone(),
        },
        OciDistributionError::UnauthorizedError { .. } => Error::Unauthorized {
            reference,
            reason: "authorization failed: no basic auth credentials".to_owned(),
        },
        OciDistributionError::ImageManifestNotFoundError(_) => Error::ImageNotFound(reference),
        OciDistributionError::RegistryError { envelope, .. } => {
            let is = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
            if is(&[
                OciErrorCode::ManifestUnknown,
                OciErrorCode::NameUnknown,
                OciErrorCode::NotFound,
            ]) {
                Error::ImageNotFound(reference)
            } else if is(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                Error::Unauthorized {
                    reference,
                    reason: error.to_string(),
                }
            } else {
                Error::Pull {
                    reference,
                    reason: error.to_string(),
                }
            }
        }
        _ => Error::Pull {
            reference,
            reason: chain_of(&error),
        },
    }
}

/// An error with its causes: the HTTP client's own words end where it gets interesting.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_of_this_machine_speak_plain_http() {
        for registry in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.8.8.8",
            "[::1]:5000",
        ] {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in [
            "docker.io",
            "localhost.example.com:443",
            "10.0.0.1:5000",
            "[2001:db8::1]:5000",
        ] {
            assert!(!is_loopback(registry), "{registry}");
        }
    }
}
