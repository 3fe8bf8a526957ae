//! What a cluster was started with, kept in its data directory: `down` and `status` need no other flag than that.

use crate::config::ClusterConfig;
use crate::kubeconfig;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// The record's name in the data directory. It is there from a start until `down`.
pub const FILE: &str = "up.json";

/// Writes the configuration down as it is in force.
pub fn write(config: &ClusterConfig) -> Result<()> {
    let mut config = config.clone();
    // Another user's defaults may lead elsewhere.
    config.kubeconfig = config.kubeconfig.or_else(kubeconfig::default_path);
    let path = config.data_dir.join(FILE);
    let text = serde_json::to_vec(&config).context("cannot write the configuration as JSON")?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The configuration of the cluster that is, or was, up in the data directory.
pub fn read(data_dir: &Path) -> Option<ClusterConfig> {
    let text = fs::read(data_dir.join(FILE)).ok()?;
    // One that another version has written is as good as none.
    let recorded = serde_json::from_slice(&text).ok()?;
    Some(ClusterConfig {
        // The directory may have been moved.
        data_dir: data_dir.to_owned(),
        ..recorded
    })
}

/// The same; the given one if there is none.
pub fn in_force(config: ClusterConfig) -> ClusterConfig {
    read(&config.data_dir).unwrap_or(config)
}
