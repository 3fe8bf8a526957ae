//! `coracle status`.

use crate::cluster::preflight;
use crate::cluster::progress::line;
use crate::config::ClusterConfig;
use anyhow::{Result, bail};

/// Says whether the cluster in the directory is up; an error if it is not.
pub fn run(config: &ClusterConfig) -> Result<()> {
    match preflight::running(&config.data_dir) {
        Some(pid) => {
            line(&format!(
                "up: process {pid}, directory {}, API server on port {}",
                config.data_dir.display(),
                config.secure_port
            ));
            Ok(())
        }
        None if config.data_dir.join("store.redb").exists() => {
            bail!("not up; its data is in {}", config.data_dir.display())
        }
        None => bail!("no cluster in {}", config.data_dir.display()),
    }
}
