//! A node for tests: an image store with an image of busybox, a runtime, pods with cgroups of their own.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coracle_oci::{
    ContainerSpec, ContainerStatus, Event, ExecSpec, Exit, ImageStore, Network, OciRuntime, PodSpec, Runtime,
    RuntimeConfig,
};
use tokio::io::AsyncReadExt;
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

/// A node.
pub struct Node {
    pub directory: tempfile::TempDir,
    pub config: RuntimeConfig,
    pub runtime: Runtime,
    pub events: UnboundedReceiver<Event>,
    pub layers: Vec<PathBuf>,
}

impl Node {
    pub async fn new(oci_runtime: OciRuntime) -> Self {
        static NODES: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().unwrap();
        let layer = directory.path().join("layer");
        busybox(&layer);
        let images = ImageStore::open(directory.path().join("images")).unwrap();
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let config = RuntimeConfig {
            root: directory.path().join("run"),
            images,
            shim_command: vec![env!("CARGO_BIN_EXE_oci-test-shim").to_owned()],
            oci_runtime,
            cgroup_root: format!("coracle-oci-test-{}-{number}", std::process::id()).into(),
        };
        let runtime = Runtime::open(config.clone()).await.unwrap();
        let events = runtime.events();
        Self {
            directory,
            config,
            runtime,
            events,
            layers: vec![layer],
        }
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
            log_dir: self.directory.path().join("logs").join(uid),
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
        fs::read_to_string(
            self.directory
                .path()
                .join("logs")
                .join(pod)
                .join(id)
                .join("0.log"),
        )
        .unwrap()
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
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = self.directory.path().to_str().unwrap().to_owned();
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
