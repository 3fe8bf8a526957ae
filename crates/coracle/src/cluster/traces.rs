//! What a start leaves on the machine, so that a start that fails can take it back.

use super::preflight::DirectoryLock;
use super::{node, preflight};
use crate::config::ClusterConfig;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The cluster's directories as they were before a start, and the lock that keeps others out of them meanwhile.
pub struct Traces {
    data: Before,
    run: Before,
    /// Without it nothing is ours to take back.
    lock: Option<DirectoryLock>,
    /// This start has put rules, addresses or routes into the kernel where there were none.
    in_kernel: bool,
}

impl Traces {
    /// Looks at the directories. An error if a cluster is up there already.
    pub fn before(config: &ClusterConfig) -> Result<Self> {
        if let Some(pid) = preflight::running(&config.data_dir) {
            return Err(preflight::already_up(&config.data_dir, pid));
        }
        Ok(Self {
            data: Before::look(&config.data_dir)?,
            run: Before::look(&config.run_dir)?,
            lock: None,
            in_kernel: false,
        })
    }

    /// Makes the directories and takes them, until this is dropped.
    pub fn take_directories(&mut self) -> Result<()> {
        make_directory(&self.data.path)?;
        self.lock = Some(preflight::lock(&self.data.path)?);
        make_directory(&self.run.path)
    }

    /// From now on the kernel has something of this cluster. Where it had before, Pods may be using it.
    pub fn in_kernel(&mut self) {
        self.in_kernel = self.run.entries.is_none();
    }

    /// Undoes a start of which no task is left.
    pub async fn take_back(self, config: &ClusterConfig) -> Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        if self.in_kernel {
            node::tear_down(config).await?;
        }
        self.remove_new_files()
    }

    /// Removes the files that were not there before.
    pub fn remove_new_files(&self) -> Result<()> {
        self.data.restore()?;
        self.run.restore()
    }
}

/// A directory before something happened to it.
struct Before {
    path: PathBuf,
    /// Names of its entries, if it was there.
    entries: Option<BTreeSet<OsString>>,
    /// Directories above it that were not there, the lowest first.
    absent_parents: Vec<PathBuf>,
}

impl Before {
    fn look(path: &Path) -> Result<Self> {
        let absent = |path: &&Path| !path.exists();
        Ok(Self {
            path: path.to_owned(),
            entries: entries(path)?,
            absent_parents: path
                .ancestors()
                .skip(1)
                .take_while(absent)
                .map(Path::to_owned)
                .collect(),
        })
    }

    fn restore(&self) -> Result<()> {
        let Some(before) = &self.entries else {
            remove(&self.path)?;
            for parent in &self.absent_parents {
                // Not empty: somebody else uses it by now.
                let _ = fs::remove_dir(parent);
            }
            return Ok(());
        };
        let now = entries(&self.path)?.unwrap_or_default();
        now.difference(before)
            .try_for_each(|name| remove(&self.path.join(name)))
    }
}

fn entries(directory: &Path) -> Result<Option<BTreeSet<OsString>>> {
    let list = || -> io::Result<BTreeSet<OsString>> {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    };
    match list() {
        Ok(names) => Ok(Some(names)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            bail!("{} is not a directory", directory.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", directory.display())),
    }
}

/// Removes a file, or a directory with all that is in it; no error if it is gone.
pub fn remove(path: &Path) -> Result<()> {
    coracle_kernel::root::remove_path(path).with_context(|| format!("cannot remove {}", path.display()))
}

fn make_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))
}
