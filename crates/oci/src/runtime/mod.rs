//! Pods and containers as the daemon sees them. Upstream counterpart: the runtime service of
//! `staging/src/k8s.io/cri-api`, as containerd implements it.

mod adopt;
mod connection;
mod create;
mod pod;
mod server;
mod session;
mod stream;
mod trash;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_kernel::cgroup::{Group, Hierarchy};
use coracle_kernel::mount;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use connection::{Connection, Failed};
use pod::{Pod, Subscribers};
use server::ShimServer;
use session::Process;

pub use session::{Attachment, ExecSession};
pub use stream::Stream;

use crate::blocking::blocking;
use crate::image::Uses;
use crate::record::{self, PodRecord};
use crate::shim::protocol::{Answer, Call};
use crate::spec::{ExecSpec, PodSpec};
use crate::state::{ContainerState, ContainerStatus, Event, PodState, Stats};
use crate::{Error, ImageStore, Result};

/// Where things are and which runtime runs containers.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Directory of pods and containers: specs, writable layers, sockets, exit files. Made when absent.
    pub root: PathBuf,
    /// The store whose layers containers use: it is told which ones, so that it keeps them.
    pub images: ImageStore,
    /// Program and arguments that lead to [`shim_main`](crate::shim_main).
    pub shim_command: Vec<String>,
    /// What runs containers of pods that are started from now on.
    pub oci_runtime: OciRuntime,
    /// Cgroup below which pods get theirs, from the root of each hierarchy, such as `coracle`.
    pub cgroup_root: PathBuf,
}

/// What runs containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OciRuntime {
    /// The launcher of this crate.
    #[default]
    Builtin,
    /// An OCI runtime binary: `runc`, `crun`, `youki`.
    Binary(PathBuf),
}

/// The containers of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: RuntimeConfig,
    hierarchy: Hierarchy,
    server: Mutex<ShimServer>,
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
    subscribers: Arc<Subscribers>,
    /// Keeps the layers of the containers in the image store.
    uses: Uses,
    /// Held for reading by each removal that goes on in the background.
    discarding: Arc<tokio::sync::RwLock<()>>,
}

/// A termination message is cut to this, as kubelet does.
const MAX_TERMINATION_MESSAGE: u64 = 4096;

impl Runtime {
    /// Opens the runtime and connects to the shims that a former daemon left: see [`list`](Self::list).
    pub async fn open(mut config: RuntimeConfig) -> Result<Self> {
        config.root = std::path::absolute(&config.root).map_err(Error::io("resolve", &config.root))?;
        let pods = config.root.join("pods");
        // Nobody but root: set-user-ID programs of containers are not for the users of the node.
        let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(&pods);
        make.map_err(Error::io("make", &pods))?;
        let hierarchy = Hierarchy::detect().map_err(Error::io("find cgroups in", "/proc/self/mountinfo"))?;
        let uses = config.images.uses(&config.root);
        let server = ShimServer::new(config.shim_command.clone(), config.root.join("shim.log"));
        let runtime = Self {
            inner: Arc::new(Inner {
                config,
                hierarchy,
                server: Mutex::new(server),
                pods: Mutex::default(),
                subscribers: Arc::default(),
                uses,
                discarding: Arc::default(),
            }),
        };
        runtime.empty_trash()?;
        runtime.adopt_all().await?;
        Ok(runtime)
    }

    /// Starts a pod: its shim, namespaces and cgroup.
    pub async fn start_pod(&self, spec: PodSpec) -> Result<()> {
        if !record::is_name(&spec.uid) {
            return Err(Error::InvalidSpec(format!("invalid pod uid {:?}", spec.uid)));
        }
        let uid = spec.uid.clone();
        let pod = self.new_pod(spec);
        match self.inner.pods.lock().entry(uid.clone()) {
            Entry::Occupied(_) => return Err(Error::AlreadyExists(format!("pod {uid}"))),
            Entry::Vacant(place) => place.insert(pod.clone()),
        };
        let result = self.spawn_shim(&pod).await;
        if result.is_err() {
            // The first error is the one to tell.
            if let Err(error) = self.remove_pod(&uid).await {
                tracing::warn!(pod = uid, %error, "cannot clean up after failed start");
            }
        }
        result
    }

    fn new_pod(&self, spec: PodSpec) -> Arc<Pod> {
        let inner = &self.inner;
        let directory = inner.config.root.join("pods").join(&spec.uid);
        let path = inner.config.cgroup_root.join(
            spec.cgroup_parent
                .strip_prefix("/")
                .unwrap_or(&spec.cgroup_parent),
        );
        Pod::new(
            spec,
            directory,
            inner.hierarchy.group(&path),
            inner.subscribers.clone(),
        )
    }

    async fn spawn_shim(&self, pod: &Arc<Pod>) -> Result<()> {
        let (runtime, in_blocking) = (self.clone(), pod.clone());
        let socket = blocking(move || runtime.prepare_pod(&in_blocking)).await?;
        let (sender, ready) = oneshot::channel();
        let connection = Connection::open(socket, pod, Some(sender))
            .map_err(Error::io("connect to shim of", &pod.spec.uid))?;
        *pod.connection.lock() = Some(connection);
        match ready.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(reason)) => Err(Error::Start(reason)),
            Err(_) => Err(Error::ShimGone(pod.spec.uid.clone())),
        }
    }

    fn prepare_pod(&self, pod: &Pod) -> Result<OwnedFd> {
        let directory = &pod.directory;
        fs::create_dir_all(directory.containers()).map_err(Error::io("make", directory.containers()))?;
        fs::create_dir_all(&pod.spec.log_dir).map_err(Error::io("make", &pod.spec.log_dir))?;
        let record = PodRecord {
            spec: PodSpec::clone(&pod.spec),
            cgroup: pod.group.path().to_owned(),
            oci_runtime: self.inner.config.oci_runtime.clone(),
        };
        record::write(&directory.record(), &record).map_err(Error::io("write", directory.record()))?;
        create::make_group(&pod.group, &pod.spec.resources, None)?;
        self.inner
            .server
            .lock()
            .spawn(&directory.0)
            .map_err(Error::io("start shim in", &directory.0))
    }

    /// Runs a created container's program; returns when it was executed. When that fails the container is `Exited`
    /// with code 128 and the error tells why, as it does in `kubectl describe`.
    pub async fn start(&self, container_id: &str) -> Result<()> {
        let (pod, container) = self.find(container_id)?;
        if container.status != ContainerStatus::Created {
            return Err(Error::InvalidState(format!(
                "container {container_id} was started already"
            )));
        }
        match connection(&pod)?
            .call(Call::Start {
                container: container_id.to_owned(),
            })
            .await
        {
            Ok(_) => Ok(()),
            Err(Failed::Refused(message)) => Err(Error::Start(message)),
            Err(Failed::Gone) => Err(Error::ShimGone(pod.spec.uid.clone())),
        }
    }

    /// Sends a signal to a container's first process; `SIGKILL` goes to all its processes. Success when it has ended.
    pub async fn kill(&self, container_id: &str, signal: i32) -> Result<()> {
        let (pod, container) = self.find(container_id)?;
        if !matches!(container.status, ContainerStatus::Running { .. }) {
            return Ok(());
        }
        let call = Call::Kill {
            container: container_id.to_owned(),
            signal,
        };
        match connection(&pod)?.call(call).await {
            Ok(_) => Ok(()),
            Err(Failed::Refused(message)) => Err(Error::InvalidState(message)),
            Err(Failed::Gone) => Err(Error::ShimGone(pod.spec.uid.clone())),
        }
    }

    /// Removes a container that does not run: writable layer, cgroup, specs; logs stay. Success when it is absent.
    pub async fn remove(&self, container_id: &str) -> Result<()> {
        let Ok((pod, _)) = self.find(container_id) else {
            return Ok(());
        };
        let _removal = pod.removal.lock().await;
        let Some(container) = pod.container(container_id) else {
            return Ok(());
        };
        if matches!(container.status, ContainerStatus::Running { .. }) {
            return Err(Error::InvalidState(format!(
                "container {container_id} is running"
            )));
        }
        if let Some(connection) = pod.connection() {
            match connection
                .call(Call::Forget {
                    container: container_id.to_owned(),
                })
                .await
            {
                Ok(_) | Err(Failed::Gone) => {}
                Err(Failed::Refused(message)) => return Err(Error::InvalidState(message)),
            }
        }
        let (runtime, in_blocking, id) = (self.clone(), pod.clone(), container_id.to_owned());
        blocking(move || runtime.erase_container(&in_blocking, &id)).await?;
        pod.forget(container_id);
        Ok(())
    }

    fn erase_container(&self, pod: &Pod, id: &str) -> Result<()> {
        let group = pod.group.child(id);
        group.delete().map_err(Error::io("remove cgroup", group.path()))?;
        self.discard(&pod.directory.container(id).0)?;
        self.inner.uses.release(id)
    }

    /// Kills what still runs in a pod, removes its containers, its cgroup and its shim. Logs and network stay with
    /// the node. Success when there is no such pod.
    pub async fn remove_pod(&self, pod_uid: &str) -> Result<()> {
        let Some(pod) = self.inner.pods.lock().get(pod_uid).cloned() else {
            return Ok(());
        };
        let _removal = pod.removal.lock().await;
        let in_blocking = pod.clone();
        blocking(move || in_blocking.kill_all()).await?;
        if let Some(connection) = pod.connection() {
            connection.cast(Call::Shutdown);
            connection.closed().await;
        }
        let (runtime, in_blocking) = (self.clone(), pod.clone());
        blocking(move || runtime.erase_pod(&in_blocking)).await?;
        self.inner.pods.lock().remove(pod_uid);
        Ok(())
    }

    fn erase_pod(&self, pod: &Pod) -> Result<()> {
        // With what runs in containers that nobody knows any more: their records are lost.
        pod.group
            .delete()
            .map_err(Error::io("remove cgroup", pod.group.path()))?;
        pod.group.remove_empty_parents(&self.inner.config.cgroup_root);
        self.discard(&pod.directory.0)?;
        for container in pod.snapshot().containers {
            self.inner.uses.release(&container.spec.id)?;
            pod.forget(&container.spec.id);
        }
        Ok(())
    }

    /// Ends every pod and takes all that this runtime has on the machine with it: processes, mounts, cgroups. Images
    /// stay.
    pub async fn delete(self) -> Result<()> {
        let mut removals = JoinSet::new();
        for pod in self.list() {
            let runtime = self.clone();
            removals.spawn(async move { runtime.remove_pod(&pod.spec.uid).await });
        }
        while let Some(removed) = removals.join_next().await {
            removed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        }
        self.trash_is_empty().await;
        let inner = self.inner;
        blocking(move || {
            let RuntimeConfig {
                root, cgroup_root, ..
            } = &inner.config;
            mount::detach_below(root).map_err(Error::io("unmount what is below", root))?;
            let group = inner.hierarchy.group(cgroup_root);
            group.delete().map_err(Error::io("remove cgroup", cgroup_root))
        })
        .await
    }

    /// All pods and containers.
    pub fn list(&self) -> Vec<PodState> {
        self.inner
            .pods
            .lock()
            .values()
            .map(|pod| pod.snapshot())
            .collect()
    }

    /// A pod and its containers.
    pub fn pod(&self, pod_uid: &str) -> Option<PodState> {
        self.inner.pods.lock().get(pod_uid).map(|pod| pod.snapshot())
    }

    /// A container.
    pub fn container(&self, container_id: &str) -> Option<ContainerState> {
        self.find(container_id).ok().map(|(_, container)| container)
    }

    /// Changes of state from now on. The receiver must be read; call it before [`list`](Self::list) to miss nothing.
    pub fn events(&self) -> mpsc::UnboundedReceiver<Event> {
        self.inner.subscribers.add()
    }

    /// Runs a process in a running container; returns when its program was executed.
    pub async fn exec(&self, container_id: &str, spec: ExecSpec) -> Result<ExecSession> {
        let (pod, _) = self.find(container_id)?;
        let connection = connection(&pod)?;
        let exec = connection.next_id();
        let code = connection.expect_exec(exec);
        let stdin = spec.stdin;
        // From here on the process is killed when this future is dropped.
        let mut process = Process {
            connection: connection.clone(),
            exec,
            ended: false,
        };
        match connection
            .call(Call::Exec {
                exec,
                container: container_id.to_owned(),
                spec,
            })
            .await
        {
            Ok((answer, fds)) => {
                let (tty, streams) = streams(&answer, fds);
                ExecSession::new(process, code, stdin, tty, streams)
                    .map_err(Error::io("connect to", container_id))
            }
            Err(failed) => {
                process.ended = true;
                connection.forget_exec(exec);
                match failed {
                    Failed::Refused(message) => Err(Error::Start(message)),
                    Failed::Gone => Err(Error::ShimGone(pod.spec.uid.clone())),
                }
            }
        }
    }

    /// Connects to the streams of a running container's first process: output from now on, input if the container
    /// keeps it open.
    pub async fn attach(&self, container_id: &str) -> Result<Attachment> {
        let (pod, container) = self.find(container_id)?;
        match connection(&pod)?
            .call(Call::Attach {
                container: container_id.to_owned(),
            })
            .await
        {
            Ok((answer, fds)) => {
                let (tty, streams) = streams(&answer, fds);
                Attachment::new(container.spec.stdin, tty, streams)
                    .map_err(Error::io("attach to", container_id))
            }
            Err(Failed::Refused(message)) => Err(Error::InvalidState(message)),
            Err(Failed::Gone) => Err(Error::ShimGone(pod.spec.uid.clone())),
        }
    }

    /// What a container uses.
    pub async fn stats(&self, container_id: &str) -> Result<Stats> {
        let (pod, _) = self.find(container_id)?;
        usage(pod.group.child(container_id)).await
    }

    /// What a pod uses.
    pub async fn pod_stats(&self, pod_uid: &str) -> Result<Stats> {
        let pod = self.inner.pods.lock().get(pod_uid).cloned();
        let pod = pod.ok_or_else(|| Error::PodNotFound(pod_uid.to_owned()))?;
        usage(pod.group.clone()).await
    }

    /// The termination message a container has written, at most 4096 bytes from its end; empty when there is none.
    pub async fn termination_message(&self, container_id: &str) -> Result<Vec<u8>> {
        let (pod, _) = self.find(container_id)?;
        let path = pod.directory.container(container_id).termination_log();
        blocking(move || read_end(&path).map_err(Error::io("read", path))).await
    }

    /// Opens the container's log file anew after it was renamed (log rotation).
    pub async fn reopen_log(&self, container_id: &str) -> Result<()> {
        let (pod, _) = self.find(container_id)?;
        match connection(&pod)?
            .call(Call::ReopenLog {
                container: container_id.to_owned(),
            })
            .await
        {
            Ok(_) => Ok(()),
            Err(Failed::Refused(message)) => Err(Error::InvalidState(message)),
            Err(Failed::Gone) => Err(Error::ShimGone(pod.spec.uid.clone())),
        }
    }

    fn find(&self, container_id: &str) -> Result<(Arc<Pod>, ContainerState)> {
        let pods = self.inner.pods.lock();
        let found = pods.values().find_map(|pod| {
            pod.container(container_id)
                .map(|container| (pod.clone(), container))
        });
        found.ok_or_else(|| Error::ContainerNotFound(container_id.to_owned()))
    }
}

impl Pod {
    /// Kills every process of every container and waits until they are gone. Blocks.
    fn kill_all(&self) -> Result<()> {
        for container in self.snapshot().containers {
            let group = self.group.child(&container.spec.id);
            group
                .kill()
                .map_err(Error::io("kill processes of", &container.spec.id))?;
        }
        Ok(())
    }
}

fn connection(pod: &Pod) -> Result<Arc<Connection>> {
    pod.connection()
        .ok_or_else(|| Error::ShimGone(pod.spec.uid.clone()))
}

/// The descriptors of an answer, each in its place.
fn streams(answer: &Answer, fds: Vec<OwnedFd>) -> (bool, [Option<OwnedFd>; 3]) {
    let Answer::Streams {
        stdin,
        stdout,
        stderr,
        tty,
    } = answer
    else {
        return (false, [None, None, None]);
    };
    let mut fds = fds.into_iter();
    (
        *tty,
        [*stdin, *stdout, *stderr].map(|present| present.then(|| fds.next()).flatten()),
    )
}

async fn usage(group: Group) -> Result<Stats> {
    blocking(move || {
        let usage = group.usage().map_err(Error::io("read usage of", group.path()))?;
        Ok(Stats {
            cpu_usage_ns: usage.cpu_ns,
            memory_usage: usage.memory,
            memory_working_set: usage.memory.saturating_sub(usage.memory_inactive_file),
            memory_rss: usage.memory_anonymous,
            pids: usage.pids,
        })
    })
    .await
}

fn read_end(path: &std::path::Path) -> io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_TERMINATION_MESSAGE)))?;
    let mut message = Vec::new();
    file.take(MAX_TERMINATION_MESSAGE).read_to_end(&mut message)?;
    Ok(message)
}
