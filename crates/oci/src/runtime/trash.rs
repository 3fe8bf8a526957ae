//! Directories that are no longer needed: they leave their place at once and are taken apart in the background, as that
//! can take long on a file system that gives blocks back while it is waited for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use coracle_kernel::{mount, root};

use super::Runtime;
use crate::{Error, Result};

impl Runtime {
    fn trash(&self) -> PathBuf {
        self.inner.config.root.join("trash")
    }

    /// Does away with a directory; success when it is absent. A shim that was killed has left its mounts there. Blocks,
    /// on a thread of the asynchronous runtime.
    pub(super) fn discard(&self, directory: &Path) -> Result<()> {
        static DISCARDED: AtomicU64 = AtomicU64::new(0);
        mount::detach_below(directory).map_err(Error::io("unmount what is below", directory))?;
        // No name twice, also not one that a former daemon gave.
        let number = DISCARDED.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let place = self.trash().join(format!("{now}-{number}"));
        match fs::rename(directory, &place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.map_err(Error::io("remove", directory))?,
        }
        self.remove_in_background(place);
        Ok(())
    }

    /// Makes the place for it, and takes apart what a former daemon has left there.
    pub(super) fn empty_trash(&self) -> Result<()> {
        let trash = self.trash();
        fs::create_dir_all(&trash).map_err(Error::io("make", &trash))?;
        for entry in fs::read_dir(&trash).map_err(Error::io("list", &trash))? {
            self.remove_in_background(entry.map_err(Error::io("list", &trash))?.path());
        }
        Ok(())
    }

    /// Waits until everything that was discarded is gone.
    pub(super) async fn trash_is_empty(&self) {
        drop(self.inner.discarding.write().await);
    }

    fn remove_in_background(&self, directory: PathBuf) {
        // Only who waits for the end of all stands in the way, and has discarded all by then.
        let under_way = self.inner.discarding.clone().try_read_owned();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = root::remove_path(&directory) {
                tracing::warn!(directory = %directory.display(), %error, "cannot remove");
            }
            drop(under_way);
        });
    }
}
