//! Adoption: what a former daemon has left, found on disk and in shims that are still there.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Runtime;
use super::connection::Connection;
use super::pod::Pod;
use crate::blocking::blocking;
use crate::record::{self, ContainerRecord, PodDirectory, PodRecord};
use crate::shim::protocol::{self, Call, Request};
use crate::shim::with_socket_path;
use crate::state::{ContainerStatus, Exit};
use crate::{Error, Result};

impl Runtime {
    /// Finds all pods. A pod whose shim is gone is kept, so that the node learns how its containers ended.
    pub(super) async fn adopt_all(&self) -> Result<()> {
        let pods = self.inner.config.root.join("pods");
        let directories = blocking(move || subdirectories(&pods).map_err(Error::io("list", pods))).await?;
        for directory in directories {
            let path = directory.clone();
            let record = blocking(move || {
                let path = PodDirectory(path).record();
                record::read::<PodRecord>(&path).map_err(Error::io("read", path))
            })
            .await;
            match record {
                Ok(record) => self.adopt(directory, record).await?,
                // A daemon or machine that crashed while it made the pod, or the record of another version.
                Err(error) => {
                    tracing::warn!(%error, "removing unreadable pod");
                    let runtime = self.clone();
                    blocking(move || {
                        end_shim(&directory);
                        runtime.discard(&directory)
                    })
                    .await?;
                }
            }
        }
        let runtime = self.clone();
        blocking(move || runtime.refresh_uses()).await
    }

    /// Brings the notes about used layers in line with the containers there are.
    fn refresh_uses(&self) -> Result<()> {
        let containers = self.list().into_iter().flat_map(|pod| pod.containers);
        let mut present = BTreeSet::new();
        for container in containers {
            let spec = container.spec;
            if let Err(error) = self.inner.uses.hold(&spec.id, &spec.layers) {
                tracing::warn!(container = spec.id, %error, "container has lost its image");
            }
            present.insert(spec.id.clone());
        }
        self.inner.uses.retain(&present)
    }

    async fn adopt(&self, directory: PathBuf, record: PodRecord) -> Result<()> {
        let inner = &self.inner;
        let group = inner.hierarchy.group(&record.cgroup);
        let pod = Pod::new(record.spec, directory.clone(), group, inner.subscribers.clone());
        let (runtime, in_blocking) = (self.clone(), pod.clone());
        blocking(move || runtime.read_containers(&in_blocking)).await?;
        inner.pods.lock().insert(pod.spec.uid.clone(), pod.clone());
        let connected = blocking(move || Ok(with_socket_path(&directory, UnixStream::connect))).await?;
        let state = match connected {
            Ok(socket) => self.ask_state(&pod, socket.into()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = state {
            // As after each start of the machine.
            tracing::info!(pod = pod.spec.uid, %error, "shim is gone");
            pod.shim_gone().await;
        }
        Ok(())
    }

    async fn ask_state(&self, pod: &Arc<Pod>, socket: OwnedFd) -> io::Result<()> {
        let connection = Connection::open(socket, pod, None)?;
        *pod.connection.lock() = Some(connection.clone());
        match connection.call(Call::State).await {
            Ok(_) => Ok(()),
            Err(failed) => Err(io::Error::other(String::from(failed))),
        }
    }

    /// Reads the containers of a pod, with what its shim wrote down last.
    fn read_containers(&self, pod: &Pod) -> Result<()> {
        let mut records = Vec::new();
        let containers = pod.directory.containers();
        for directory in subdirectories(&containers).map_err(Error::io("list containers in", &containers))? {
            let Some(id) = directory.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let directory = pod.directory.container(id);
            match record::read::<ContainerRecord>(&directory.record()) {
                Ok(record) => {
                    let status = directory.read_status().unwrap_or_else(|error| {
                        tracing::warn!(container = id, %error, "status is unreadable");
                        Some(ContainerStatus::Exited(Exit::unseen(&ContainerStatus::Created)))
                    });
                    records.push((record, status.unwrap_or(ContainerStatus::Created)));
                }
                // Its creation was interrupted, so nothing ran in it.
                Err(_) => self.discard(&directory.0)?,
            }
        }
        records.sort_by_key(|(record, _)| record.created_at);
        for (record, status) in records {
            pod.add(record.spec, record.created_at, status);
        }
        Ok(())
    }
}

/// Ends the shim of a pod that cannot be made out any more, and with it what runs there. Blocks.
fn end_shim(directory: &Path) {
    // Where nobody listens there is none.
    let Ok(mut socket) = with_socket_path(directory, UnixStream::connect) else {
        return;
    };
    let request = Request {
        id: 0,
        call: Call::Shutdown,
    };
    let ended = protocol::encode(&request).and_then(|frame| {
        socket.write_all(&frame)?;
        // It hangs up when it ends.
        io::copy(&mut socket, &mut io::sink())
    });
    if let Err(error) = ended {
        tracing::warn!(directory = %directory.display(), %error, "cannot end the shim");
    }
}

fn subdirectories(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
