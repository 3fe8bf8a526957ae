//! The demo's images, made offline: an OCI layout around this very binary and the shared libraries it runs with.

use crate::commands::image::store_in;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Runs `demo-db`.
pub const DB: &str = "coracle.local/demo-db:1.0";
/// Runs `demo-api`.
pub const API: &str = "coracle.local/demo-api:1.0";

/// Where the dynamic loader must be, whatever the host's symbolic links make of it.
#[cfg(target_arch = "x86_64")]
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
#[cfg(target_arch = "aarch64")]
const LOADER: &str = "/lib/ld-linux-aarch64.so.1";

/// Puts both images into the store of the cluster in this directory.
pub async fn load(data_dir: &Path) -> Result<()> {
    let store = store_in(data_dir)?;
    let archive = data_dir.join("demo-images.tar");
    tokio::task::spawn_blocking(move || {
        write_archive(&archive)?;
        store
            .load_archive(&archive)
            .context("cannot load the demo's images")?;
        std::fs::remove_file(&archive).context("cannot remove the demo's archive")
    })
    .await?
}

/// Writes one archive (a tar of an OCI image layout) that holds both images. They share their only layer.
fn write_archive(archive: &Path) -> Result<()> {
    let layer = layer().context("cannot make the layer of the demo images")?;
    let mut blobs: Vec<(String, Vec<u8>)> = Vec::new();
    let layer_descriptor = descriptor("application/vnd.oci.image.layer.v1.tar", &layer);
    let diff_id = layer_descriptor["digest"].clone();
    let mut manifests = Vec::new();
    for (reference, program) in [(DB, "demo-db"), (API, "demo-api")] {
        let config = serde_json::to_vec(&json!({
            "architecture": oci_architecture(),
            "os": "linux",
            "config": {"Entrypoint": ["/coracle", "internal", program], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }))?;
        let config_descriptor = descriptor("application/vnd.oci.image.config.v1+json", &config);
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config_descriptor,
            "layers": [layer_descriptor],
        }))?;
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] =
            json!({"org.opencontainers.image.ref.name": reference, "io.containerd.image.name": reference});
        manifests.push(entry);
        blobs.push((blob_path(&config), config));
        blobs.push((blob_path(&manifest), manifest));
    }
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": manifests}))?;
    let file = File::create(archive).with_context(|| format!("cannot create {}", archive.display()))?;
    let mut tar = tar::Builder::new(file);
    add(
        &mut tar,
        "oci-layout",
        0o644,
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    add(&mut tar, "index.json", 0o644, &index)?;
    add(&mut tar, &blob_path(&layer), 0o644, &layer)?;
    for (path, content) in blobs {
        add(&mut tar, &path, 0o644, &content)?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

/// A root filesystem that can run this binary: itself, its loader and libraries, and a passwd file.
fn layer() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for directory in ["tmp", "etc"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(if directory == "tmp" { 0o1777 } else { 0o755 });
        tar.append_data(&mut header, format!("{directory}/"), std::io::empty())?;
    }
    add(&mut tar, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/coracle\n")?;
    add(&mut tar, "etc/group", 0o644, b"root:x:0:\n")?;
    let binary = std::fs::read("/proc/self/exe").context("cannot read this binary")?;
    add(&mut tar, "coracle", 0o755, &binary)?;
    for library in shared_libraries()? {
        let content =
            std::fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
        let inside = library.strip_prefix("/").unwrap_or(&library);
        add(&mut tar, &inside.to_string_lossy(), 0o755, &content)?;
    }
    Ok(tar.into_inner()?)
}

/// The shared objects mapped into this process, and the loader under the name the binary asks for it.
fn shared_libraries() -> Result<BTreeSet<PathBuf>> {
    let maps = std::fs::read_to_string("/proc/self/maps").context("cannot read this process's mappings")?;
    let mut libraries: BTreeSet<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.starts_with('/') && path.contains(".so"))
        .map(PathBuf::from)
        .collect();
    if !libraries.is_empty() {
        libraries.insert(PathBuf::from(LOADER));
    }
    Ok(libraries)
}

fn add<W: Write>(tar: &mut tar::Builder<W>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, content)
        .with_context(|| format!("cannot add {path}"))
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", hex(content)), "size": content.len()})
}

fn blob_path(content: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(content))
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn oci_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
