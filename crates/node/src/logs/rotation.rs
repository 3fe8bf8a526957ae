//! Keeps the logs of running containers small: a file of 10 MiB is renamed and the container's shim opens a new one;
//! five files are kept. Upstream: `pkg/kubelet/logs/container_log_manager.go`, with its figures. Old files are not
//! compressed, so that `kubectl logs` can read them.
//!
//! Sizes are looked at every 10 seconds, as upstream does: to be told of every write would cost more.

use super::reader::rotated;
use crate::kubelet::{Kubelet, describe};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

const LOOK: Duration = Duration::from_secs(10);
const MAX_SIZE: u64 = 10 << 20;
/// With the current one.
const MAX_FILES: usize = 5;

/// Rotates until dropped.
pub async fn run(kubelet: Arc<Kubelet>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (id, path) in running(&kubelet) {
            let length = std::fs::metadata(&path).map_or(0, |m| m.len());
            if length >= MAX_SIZE
                && let Err(error) = rotate(&kubelet, &id, path).await
            {
                tracing::warn!(container = id, error, "log not rotated");
            }
        }
    }
}

fn running(kubelet: &Kubelet) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for view in kubelet.views.list() {
        let directory = kubelet.log_dir(&view.pod);
        for container in &view.containers {
            if let (Some(id), Some(attempt)) = (&container.running, container.attempt) {
                let path = directory.join(&container.name).join(format!("{attempt}.log"));
                files.push((id.clone(), path));
            }
        }
    }
    files
}

async fn rotate(kubelet: &Kubelet, id: &str, path: PathBuf) -> Result<(), String> {
    let moved = path.clone();
    let renamed = tokio::task::spawn_blocking(move || make_room(&moved));
    let name = renamed
        .await
        .map_err(|error| describe(&error))?
        .map_err(|error| describe(&error))?;
    let reopened = kubelet.runtime.reopen_log(id).await;
    reopened.map_err(|error| {
        // The container goes on writing into the renamed file: give it its name back.
        let _ = std::fs::rename(&name, &path);
        describe(&error)
    })
}

/// Removes the oldest files and renames the current one. Returns its new name.
fn make_room(path: &PathBuf) -> std::io::Result<PathBuf> {
    let old = rotated(path);
    let surplus = (old.len() + 2).saturating_sub(MAX_FILES);
    for file in old.iter().take(surplus) {
        std::fs::remove_file(file)?;
    }
    let mut name = path.clone().into_os_string();
    name.push(Timestamp::now().strftime(".%Y%m%d-%H%M%S").to_string());
    std::fs::rename(path, &name)?;
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_files_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        std::fs::write(&path, "now").expect("written");
        for day in 1..=6 {
            std::fs::write(directory.path().join(format!("0.log.2026010{day}-000000")), "old")
                .expect("written");
        }
        let name = make_room(&path).expect("rotated");
        assert_eq!(std::fs::read_to_string(&name).expect("renamed"), "now");
        assert!(!path.exists());
        let left = rotated(&path);
        assert_eq!(left.len(), MAX_FILES - 1, "and a new current file");
        assert!(left[0].ends_with("0.log.20260104-000000"));
    }
}
