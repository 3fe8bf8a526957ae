//! What a cluster was started with, kept in its data directory: `down` and `status` need no other flag than that.

use crate::config::ClusterConfig;
use crate::kubeconfig;
use anyhow::{Context, Result};
use std::fs;

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

/// The configuration of the cluster that is, or was, up in the data directory; the given one if there is none.
pub fn in_force(config: ClusterConfig) -> ClusterConfig {
    let read = fs::read(config.data_dir.join(FILE));
    // One that another version has written is as good as none.
    let recorded = read.ok().and_then(|text| serde_json::from_slice(&text).ok());
    match recorded {
        Some(recorded) => ClusterConfig {
            // The directory may have been moved.
            data_dir: config.data_dir,
            ..recorded
        },
        None => config,
    }
}
