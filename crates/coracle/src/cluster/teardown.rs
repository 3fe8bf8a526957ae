//! `coracle down`, and the end of a demo: nothing of a cluster is left in the kernel.

use super::progress::line;
use super::traces::remove;
use super::{node, preflight, record};
use crate::config::ClusterConfig;
use crate::kubeconfig;
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long a daemon may take to end before it is killed: it needs a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// All that a cluster makes in its data directory. Only this is deleted: the directory is the user's to choose, and may
/// hold more.
const DATA: [&str; 9] = [
    "coracle.log",
    "containers",
    "demo-images.tar",
    "images",
    "node",
    "pki",
    "store.redb",
    record::FILE,
    // Last: whoever has it has the directory.
    preflight::LOCK_FILE,
];
/// All that a cluster makes in its run directory.
const RUN: [&str; 1] = [node::NETNS];

/// Stops the daemon if one runs, ends all Pods, takes network and rules out of the kernel; with `delete` the
/// cluster's directory and kubeconfig context go too.
pub async fn run(config: &ClusterConfig, delete: bool) -> Result<()> {
    let (data_dir, run_dir) = (&config.data_dir, &config.run_dir);
    let made = |directory: &Path, names: &[&str]| names.iter().any(|name| directory.join(name).exists());
    if !made(data_dir, &DATA) && !made(run_dir, &RUN) {
        line(&format!("There is no cluster in {}", data_dir.display()));
        return Ok(());
    }
    if let Some(pid) = preflight::running(data_dir) {
        stop_daemon(data_dir, pid).await?;
    }
    // Nobody starts it while it is taken down.
    let lock = data_dir.exists().then(|| preflight::lock(data_dir)).transpose()?;
    node::tear_down(config)
        .await
        .context("cannot take the node down")?;
    delete_from(run_dir, &RUN)?;
    remove(&data_dir.join(record::FILE))?;
    if delete {
        delete_from(data_dir, &DATA)?;
        if let Some(file) = config.kubeconfig.clone().or_else(kubeconfig::default_path) {
            kubeconfig::remove(&file)?;
        }
    }
    drop(lock);
    line(&format!(
        "The cluster in {} is {}",
        data_dir.display(),
        if delete { "deleted" } else { "down" }
    ));
    Ok(())
}

/// Deletes what the cluster made in a directory, and the directory if that was all.
fn delete_from(directory: &Path, names: &[&str]) -> Result<()> {
    names.iter().try_for_each(|name| remove(&directory.join(name)))?;
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            line(&format!(
                "{} holds files of others and stays",
                directory.display()
            ));
            Ok(())
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

async fn stop_daemon(data_dir: &Path, pid: u32) -> Result<()> {
    preflight::signal(pid, "TERM")?;
    let ended = || {
        let directory = data_dir.to_owned();
        tokio::task::spawn_blocking(move || preflight::wait_until_free(&directory))
    };
    match timeout(PATIENCE, ended()).await {
        Ok(ended) => ended?,
        Err(_) => {
            preflight::signal(pid, "KILL")?;
            ended().await?
        }
    }
}
