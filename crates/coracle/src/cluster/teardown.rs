//! `coracle down`, and the end of a demo: nothing of a cluster is left in the kernel.

use super::{node, preflight};
use crate::config::ClusterConfig;
use crate::kubeconfig;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Stops the daemon if one runs, ends all Pods, takes network and rules out of the kernel; with `delete` the
/// cluster's directory and kubeconfig context go too.
pub async fn run(config: &ClusterConfig, delete: bool) -> Result<()> {
    if let Some(pid) = preflight::running(&config.data_dir) {
        stop_daemon(config, pid)?;
    }
    if config.data_dir.exists() || config.run_dir.exists() {
        node::tear_down(config)
            .await
            .context("cannot take the node down")?;
    }
    if config.run_dir.exists() {
        std::fs::remove_dir_all(&config.run_dir)
            .with_context(|| format!("cannot remove {}", config.run_dir.display()))?;
    }
    if delete {
        if config.data_dir.exists() {
            std::fs::remove_dir_all(&config.data_dir)
                .with_context(|| format!("cannot remove {}", config.data_dir.display()))?;
        }
        if let Some(file) = config.kubeconfig.clone().or_else(kubeconfig::default_path) {
            kubeconfig::remove(&file)?;
        }
    }
    Ok(())
}

fn stop_daemon(config: &ClusterConfig, pid: u32) -> Result<()> {
    let status = Command::new("kill")
        .arg("-TERM")
        .arg(pid.to_string())
        .status()
        .context("cannot run kill")?;
    if !status.success() {
        bail!("cannot stop the daemon (process {pid})");
    }
    preflight::wait_until_free(&config.data_dir)
}
