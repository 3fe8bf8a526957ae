//! Which layers containers use, so that they are not removed under them. A note for each container, by name of the
//! runtime it belongs to: several runtimes may share a store.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{ImageStore, entries, layer};
use crate::{Error, Result};

/// The notes of one runtime.
#[derive(Clone, Debug)]
pub(crate) struct Uses {
    store: ImageStore,
    prefix: String,
}

impl ImageStore {
    /// The notes of the runtime in this directory.
    pub(crate) fn uses(&self, runtime: &Path) -> Uses {
        let digest = layer::digest(runtime.as_os_str().as_encoded_bytes());
        let prefix = digest
            .trim_start_matches("sha256:")
            .chars()
            .take(16)
            .chain(['.'])
            .collect();
        Uses {
            store: self.clone(),
            prefix,
        }
    }
}

impl Uses {
    fn path(&self, container: &str) -> PathBuf {
        self.store
            .root
            .join("uses")
            .join(format!("{}{container}", self.prefix))
    }

    /// A container uses these layers, until [`release`](Self::release).
    pub(crate) fn hold(&self, container: &str, layers: &[PathBuf]) -> Result<()> {
        let _lock = self.store.lock_shared()?;
        if let Some(missing) = layers.iter().find(|layer| !layer.is_dir()) {
            return Err(Error::ImageNotFound(format!("with layer {}", missing.display())));
        }
        let path = self.path(container);
        let hold = || fs::write(&path, serde_json::to_vec(layers)?);
        hold().map_err(Error::io("write", &path))
    }

    /// A container is gone.
    pub(crate) fn release(&self, container: &str) -> Result<()> {
        remove(&self.path(container))
    }

    /// These are all containers that there are: what a daemon that was killed has noted for others is void.
    pub(crate) fn retain(&self, containers: &BTreeSet<String>) -> Result<()> {
        for path in entries(&self.store.root.join("uses"))? {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name
                .strip_prefix(&self.prefix)
                .is_some_and(|container| !containers.contains(container))
            {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
