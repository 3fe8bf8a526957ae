//! A node for tests: an image store with an image of busybox, a runtime, pods with cgroups of their own.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coracle_oci::{
    ContainerSpec, ContainerStatus, Event, ExecSpec, Exit, ImageStore, Network, OciRuntime, PodSpec, Runtime,
    RuntimeConfig, Stream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;

/// How long anything may take before a test is considered stuck.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on a multi-threaded runtime, as the daemon is.
pub fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("test is stuck") });
}

/// The runtimes to compare: ours, and runc as the oracle.
pub fn runtimes() -> Vec<OciRuntime> {
    let runc = ["/usr/sbin/runc", "/usr/bin/runc"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let runc = runc.map(|path| OciRuntime::Binary(path.into()));
    assert!(
        runc.is_some(),
        "runc is not installed: there is nothing to compare with"
    );
    [OciRuntime::Builtin].into_iter().chain(runc).collect()
}

/// Runs a test over each runtime.
pub fn test_each<F: AsyncFn(Node) -> Node>(test: F) {
    run(async {
        for runtime in runtimes() {
            eprintln!("with {runtime:?}");
            test(Node::new(runtime).await).await.done().await;
        }
    });
}

/// A node.
pub struct Node {
    pub directory: PathBuf,
    /// Removes the directory.
    guard: Option<tempfile::TempDir>,
    pub config: RuntimeConfig,
    pub runtime: Runtime,
    pub events: UnboundedReceiver<Event>,
    pub layers: Vec<PathBuf>,
}

impl Node {
    pub async fn new(oci_runtime: OciRuntime) -> Self {
        static NODES: AtomicU32 = AtomicU32::new(0);
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let directory = tempfile::tempdir().unwrap();
        let mut node = Self::open(directory.path(), oci_runtime, &name).await;
        node.guard = Some(directory);
        node
    }

    /// A node on a directory that may be one already.
    pub async fn open(directory: &Path, oci_runtime: OciRuntime, name: &str) -> Self {
        let layer = directory.join("layer");
        if !layer.exists() {
            busybox(&layer);
        }
        let images = ImageStore::open(directory.join("images")).unwrap();
        let config = RuntimeConfig {
            root: directory.join("run"),
            images,
            shim_command: vec![env!("CARGO_BIN_EXE_oci-test-shim").to_owned()],
            oci_runtime,
            cgroup_root: format!("coracle-oci-test-{name}").into(),
        };
        let runtime = Runtime::open(config.clone()).await.unwrap();
        let events = runtime.events();
        Self {
            directory: directory.to_owned(),
            guard: None,
            config,
            runtime,
            events,
            layers: vec![layer],
        }
    }

    pub fn is_builtin(&self) -> bool {
        self.config.oci_runtime == OciRuntime::Builtin
    }

    /// As a daemon that was killed and is started again.
    pub async fn restart(&mut self) {
        self.runtime = Runtime::open(self.config.clone()).await.unwrap();
        self.events = self.runtime.events();
    }

    pub fn pod_spec(&self, uid: &str) -> PodSpec {
        PodSpec {
            uid: uid.to_owned(),
            namespace: "default".to_owned(),
            name: uid.to_owned(),
            hostname: format!("{uid}-host"),
            network: Network::Host,
            cgroup_parent: format!("besteffort/pod{uid}").into(),
            log_dir: self.directory.join("logs").join(uid),
            ..PodSpec::default()
        }
    }

    pub async fn pod(&self, uid: &str) {
        self.runtime.start_pod(self.pod_spec(uid)).await.unwrap();
    }

    pub fn container_spec(&self, id: &str, argv: &[&str]) -> ContainerSpec {
        ContainerSpec {
            id: id.to_owned(),
            name: id.to_owned(),
            layers: self.layers.clone(),
            argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
            mask_paths: true,
            log_path: format!("{id}/0.log").into(),
            ..ContainerSpec::default()
        }
    }

    /// A shell script as a container.
    pub fn script(&self, id: &str, script: &str) -> ContainerSpec {
        self.container_spec(id, &["sh", "-c", script])
    }

    pub async fn start(&self, pod: &str, spec: ContainerSpec) {
        let id = spec.id.clone();
        self.runtime.create_container(pod, spec).await.unwrap();
        self.runtime.start(&id).await.unwrap();
    }

    /// Starts a container and waits for its end.
    pub async fn finish(&mut self, pod: &str, spec: ContainerSpec) -> (Exit, String) {
        let id = spec.id.clone();
        self.start(pod, spec).await;
        let exit = self.exit(&id).await;
        (exit, self.output(pod, &id))
    }

    /// Waits for the end of a container.
    pub async fn exit(&mut self, id: &str) -> Exit {
        if let Some(ContainerStatus::Exited(exit)) =
            self.runtime.container(id).map(|container| container.status)
        {
            return exit;
        }
        while let Some(event) = self.events.recv().await {
            match event {
                Event::ContainerExited {
                    container_id, exit, ..
                } if container_id == id => return exit,
                _ => {}
            }
        }
        panic!("no more events");
    }

    pub fn log(&self, pod: &str, id: &str) -> String {
        fs::read_to_string(self.directory.join("logs").join(pod).join(id).join("0.log")).unwrap()
    }

    /// A log without times, streams and tags.
    pub fn output(&self, pod: &str, id: &str) -> String {
        let line = |line: &str| line.splitn(4, ' ').nth(3).unwrap().to_owned() + "\n";
        self.log(pod, id).lines().map(line).collect()
    }

    /// Runs a process in a container and returns its exit code and output.
    pub async fn exec(&self, id: &str, argv: &[&str]) -> (i32, String, String) {
        let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
        let mut session = self
            .runtime
            .exec(
                id,
                ExecSpec {
                    argv,
                    ..ExecSpec::default()
                },
            )
            .await
            .unwrap();
        let (mut output, mut error) = (String::new(), String::new());
        session
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut output)
            .await
            .unwrap();
        session
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut error)
            .await
            .unwrap();
        (session.wait().await.unwrap(), output, error)
    }

    /// Removes everything, and checks that nothing is left.
    pub async fn done(self) {
        for pod in self.runtime.list() {
            self.runtime.remove_pod(&pod.spec.uid).await.unwrap();
        }
        let trash = self.config.root.join("trash");
        while fs::read_dir(&trash).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = self.directory.to_str().unwrap().to_owned();
        assert!(!mounts.contains(&place), "mounts are left");
        assert_eq!(
            fs::read_dir(self.config.root.join("pods")).unwrap().count(),
            0,
            "pods are left"
        );
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let group = hierarchy.unwrap().path().join(&self.config.cgroup_root);
            if group.is_dir() {
                let left: Vec<_> = fs::read_dir(&group)
                    .unwrap()
                    .map(|e| e.unwrap())
                    .filter(|e| e.path().is_dir())
                    .collect();
                assert!(left.is_empty(), "cgroups are left: {left:?}");
                fs::remove_dir(group).unwrap();
            }
        }
    }
}

/// Sends to a stream.
pub async fn send(stream: &mut Option<Stream>, data: &[u8]) {
    stream
        .as_mut()
        .expect("there is a stream")
        .write_all(data)
        .await
        .unwrap();
}

/// Reads until what was read ends with or contains `end`.
pub async fn read_until(stream: &mut Option<Stream>, end: &str) -> String {
    let stream = stream.as_mut().expect("there is a stream");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(end) {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "end of file after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    text
}

/// Reads one line, which has to be this.
pub async fn read_line(stream: &mut Option<Stream>, line: &str) {
    assert_eq!(read_until(stream, "\n").await.trim_end(), line);
}

/// Waits for a container to write something.
pub async fn wait_for_log(node: &Node, pod: &str, id: &str, text: &str) {
    let path = node.directory.join("logs").join(pod).join(id).join("0.log");
    while !fs::read_to_string(&path).unwrap_or_default().contains(text) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Kills a process and waits until it is gone.
pub fn kill_process(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL).unwrap();
    let mut poll = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut poll, None).unwrap();
}

/// Whether a process runs. Whoever has inherited one that has ended may not have waited for it yet.
pub fn runs(pid: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(state.rsplit(' ').nth(49).unwrap_or("Z"), "Z" | "X")
}

pub fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))
        .unwrap()
        .parse()
        .unwrap()
}

/// A directory bound onto itself and shared, as kubelet has its own.
pub struct SharedMount(PathBuf);

impl SharedMount {
    pub fn new(path: &Path) -> Self {
        rustix::mount::mount_bind(path, path).unwrap();
        rustix::mount::mount_change(path, rustix::mount::MountPropagationFlags::SHARED).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A mount with a file in it.
pub struct TmpfsWith(PathBuf);

impl TmpfsWith {
    pub fn new(path: &Path, file: &str) -> Self {
        rustix::mount::mount("tmpfs", path, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        fs::write(path.join(file), "").unwrap();
        Self(path.to_owned())
    }
}

impl Drop for TmpfsWith {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A root file system of busybox and little more.
pub fn busybox(root: &Path) {
    for directory in ["bin", "etc", "tmp", "root", "var"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let applets = "sh cat echo sleep true false id ls env hostname mount umount ps kill dd tail head grep touch rm mkdir \
        ln stat wc pwd unshare mknod chroot stty tty seq readlink chmod su test yes sync printf ip tr cut";
    for applet in applets.split_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/srv:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nweb:x:1001:\nextra:x:2000:web\n",
    )
    .unwrap();
    symlink("/run", root.join("var/run")).unwrap();
}

/// Writes an image as `docker save` would: the root file system and one layer more.
pub fn docker_archive(path: &Path, name: &str, root: &Path) {
    let mut lower = tar::Builder::new(Vec::new());
    lower.follow_symlinks(false);
    lower.append_dir_all(".", root).unwrap();
    let mut upper = tar::Builder::new(Vec::new());
    append(&mut upper, "message", b"second layer\n");
    let layers = [lower.into_inner().unwrap(), upper.into_inner().unwrap()];
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": {
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["echo $(id -u) $(pwd) $FROM $(cat /message)"],
            "Env": ["FROM=from-image", "PATH=/bin"],
            "User": "web",
            "WorkingDir": "/srv",
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": [name], "Layers": ["0/layer.tar", "1/layer.tar"]},
    ]);
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    append(
        &mut archive,
        "manifest.json",
        &serde_json::to_vec(&manifest).unwrap(),
    );
    append(&mut archive, "config.json", &serde_json::to_vec(&config).unwrap());
    for (index, layer) in layers.iter().enumerate() {
        append(&mut archive, &format!("{index}/layer.tar"), layer);
    }
    archive.finish().unwrap();
}

fn append<W: std::io::Write>(archive: &mut tar::Builder<W>, path: &str, contents: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, contents).unwrap();
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    let digits: String = sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{digits}")
}
