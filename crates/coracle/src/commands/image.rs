//! `coracle image`: the images of this node. Works with and without a running cluster: the store's directory may be
//! used by several processes.

use crate::cli::{ImageArgs, ImageCommand};
use crate::cluster::progress::line;
use crate::demo;
use anyhow::{Context, Result, anyhow, bail};
use coracle_oci::{Credentials, Image, ImageStore, PullConfig};
use std::path::Path;

/// Where a cluster keeps its images.
pub fn store_in(data_dir: &Path) -> Result<ImageStore> {
    let root = data_dir.join("images");
    ImageStore::open(&root).with_context(|| format!("cannot open the image store {}", root.display()))
}

/// Runs `coracle image …`.
pub async fn run(args: ImageArgs) -> Result<()> {
    match args.command {
        ImageCommand::Load { file, store } => {
            let store = store_in(&store.data_dir)?;
            let loading = file.clone();
            let references = tokio::task::spawn_blocking(move || store.load_archive(&loading))
                .await?
                .with_context(|| format!("cannot load {}", file.display()))?;
            references
                .iter()
                .for_each(|reference| line(&format!("loaded {reference}")));
        }
        ImageCommand::Demo { store } => {
            demo::image::load(&store.data_dir).await?;
            for reference in [demo::image::DB, demo::image::API] {
                line(&format!("loaded {reference}"));
            }
        }
        ImageCommand::Pull {
            reference,
            credentials,
            insecure_registry,
            store,
        } => {
            let store = store_in(&store.data_dir)?;
            let credentials = credentials.as_deref().map(parse_credentials).transpose()?;
            let config = PullConfig {
                plain_http: insecure_registry,
            };
            let image = store
                .pull(&reference, credentials, &config, |_| {})
                .await
                .with_context(|| format!("cannot pull {reference}"))?;
            line(&format!(
                "pulled {reference} ({}, {})",
                short_id(&image),
                size(image.size)
            ));
        }
        ImageCommand::Ls { store } => list(&store_in(&store.data_dir)?.list()?),
        ImageCommand::Rm { reference, store } => {
            let store = store_in(&store.data_dir)?;
            if store.resolve(&reference)?.is_none() {
                bail!("no image {reference}");
            }
            store
                .remove(&reference)
                .with_context(|| format!("cannot remove {reference}"))?;
            line(&format!("removed {reference}"));
        }
    }
    Ok(())
}

fn parse_credentials(text: &str) -> Result<Credentials> {
    let (username, password) = text
        .split_once(':')
        .ok_or_else(|| anyhow!("--credentials must be USER:PASSWORD"))?;
    Ok(Credentials::Basic {
        username: username.to_owned(),
        password: password.to_owned(),
    })
}

fn list(images: &[Image]) {
    let mut rows: Vec<[String; 3]> = Vec::new();
    for image in images {
        let names = if image.references.is_empty() {
            &image.digests
        } else {
            &image.references
        };
        let unnamed = ["<none>".to_owned()];
        let names: &[String] = if names.is_empty() { &unnamed } else { names };
        rows.extend(
            names
                .iter()
                .map(|name| [name.clone(), short_id(image), size(image.size)]),
        );
    }
    rows.sort();
    let width = rows
        .iter()
        .map(|row| row[0].len())
        .max()
        .unwrap_or(0)
        .max("IMAGE".len());
    line(&format!("{:width$}   {:12}   SIZE", "IMAGE", "ID"));
    for [name, id, size] in rows {
        line(&format!("{name:width$}   {id:12}   {size}"));
    }
}

fn short_id(image: &Image) -> String {
    image.id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// Bytes as `docker images` shows them.
fn size(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bytes = bytes as f64;
    match bytes {
        b if b >= 1e9 => format!("{:.2}GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1}MB", b / 1e6),
        b => format!("{:.1}kB", b / 1e3),
    }
}
