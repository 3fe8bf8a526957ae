//! What a pod and its containers shall be, as the node asks for it. Upstream counterpart: `PodSandboxConfig` and
//! `ContainerConfig` of `staging/src/k8s.io/cri-api`. The specs are kept on disk beside the containers, so that a
//! daemon that starts again knows what it runs; new fields therefore need a serde default.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A pod: the namespaces and the cgroup that its containers share.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PodSpec {
    /// Unique name of the pod, `metadata.uid`; `[A-Za-z0-9._-]+`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Host name inside the pod; ignored with [`Network::Host`], which shares the node's UTS namespace too.
    pub hostname: String,
    /// Network namespace of the pod.
    pub network: Network,
    /// `spec.hostIPC`: use the node's IPC namespace.
    pub host_ipc: bool,
    /// `spec.hostPID`: use the node's PID namespace.
    pub host_pid: bool,
    /// `spec.shareProcessNamespace`: one PID namespace for the containers of the pod, its first process being a reaper.
    pub share_process_namespace: bool,
    /// Path of the pod's cgroup under [`RuntimeConfig::cgroup_root`](crate::RuntimeConfig::cgroup_root), such as
    /// `besteffort/pod1b9c…`. Containers get a child each.
    pub cgroup_parent: PathBuf,
    /// Limits of the whole pod, set on its cgroup.
    pub resources: Resources,
    /// Directory of the pod's logs, made when absent; [`ContainerSpec::log_path`] is relative to it.
    pub log_dir: PathBuf,
    /// Namespaced sysctls, by name with dots.
    pub sysctls: BTreeMap<String, String>,
}

/// Where the network of a pod comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The network namespace of the node (`spec.hostNetwork`).
    #[default]
    Host,
    /// A network namespace kept by a bind mount at this path.
    Namespace(PathBuf),
}

/// A container of a pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Unique over all pods and attempts; `[A-Za-z0-9._-]+`.
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// How often a container of this name was created in the pod before.
    pub attempt: u32,
    /// The image as the node resolved it, for information.
    pub image: String,
    /// Unpacked layers of the root file system, lowest first: [`Image::layers`](crate::Image::layers).
    pub layers: Vec<PathBuf>,
    /// Program and arguments; the program is searched in `PATH` of `env` when it has no slash.
    pub argv: Vec<String>,
    /// `NAME=value`. `PATH`, `HOSTNAME` and `HOME` get defaults when absent, `TERM` with a tty.
    pub env: Vec<String>,
    /// Working directory, made when absent; empty means `/`.
    pub cwd: String,
    /// Who runs the process.
    pub user: User,
    /// Mounts besides those every container gets (`/proc`, `/dev`, `/sys`, `/dev/shm`, …).
    pub mounts: Vec<Mount>,
    /// Limits of the container's cgroup.
    pub resources: Resources,
    /// `oom_score_adj`; clamped to what the node may set.
    pub oom_score_adj: i32,
    /// Changes to the default capabilities.
    pub capabilities: Capabilities,
    /// System call filter.
    pub seccomp: Seccomp,
    /// All capabilities, all devices, no filter, nothing masked.
    pub privileged: bool,
    /// `!allowPrivilegeEscalation`: set-user-ID programs gain nothing.
    pub no_new_privileges: bool,
    /// Mount the root file system read-only.
    pub read_only_rootfs: bool,
    /// `procMount: Unmasked` turns this off: hide what `/proc` and `/sys` tell of the node. Ignored when privileged.
    pub mask_paths: bool,
    /// Devices besides the default ones.
    pub devices: Vec<Device>,
    /// Resource limits of the process (`setrlimit`); what the node may not raise is clamped.
    pub rlimits: Vec<Rlimit>,
    /// Give the process a terminal; its output is one stream then.
    pub tty: bool,
    /// Keep standard input open, for [`Runtime::attach`](crate::Runtime::attach).
    pub stdin: bool,
    /// Close standard input when the first attached client has gone.
    pub stdin_once: bool,
    /// Log file below [`PodSpec::log_dir`], such as `api/0.log`; empty means that nothing is logged.
    pub log_path: PathBuf,
    /// Path in the container of a file made for the termination message; empty means none. The node reads it by
    /// [`Runtime::termination_message`](crate::Runtime::termination_message).
    pub termination_message_path: String,
    /// Free-form notes the node wants back after a restart.
    pub annotations: BTreeMap<String, String>,
}

/// Who runs a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// `USER` of the image or `runAsUser` in decimal: `name`, `uid`, `name:group`, `uid:gid`. Names are looked up in
    /// the image's `/etc/passwd` and `/etc/group`; empty means root.
    pub user: String,
    /// `runAsGroup`; replaces the group that `user` leads to.
    pub gid: Option<u32>,
    /// `supplementalGroups` and `fsGroup`, in addition to the user's groups in the image's `/etc/group`.
    pub supplementary_groups: Vec<u32>,
    /// `supplementalGroupsPolicy: Strict`: do not add the groups of the image's `/etc/group`.
    pub strict_groups: bool,
}

/// A mount of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute path in the container; made when absent, symbolic links resolved inside the container's root.
    pub destination: String,
    /// No writes through this mount.
    pub read_only: bool,
    /// How mounts made later below it travel.
    pub propagation: Propagation,
}

/// What a [`Mount`] shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the node, with the mounts below it.
    Bind(PathBuf),
    /// Memory; size in bytes, the kernel's default (half of the memory) when absent.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
    },
}

/// `mountPropagation` of a volume mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Neither way (`None`).
    #[default]
    Private,
    /// Mounts of the node appear in the container.
    HostToContainer,
    /// Mounts appear both ways.
    Bidirectional,
}

/// Limits of a cgroup. Absent fields leave the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative weight as of cgroup v1 (`cpu.shares`, 2…262144); converted for v2.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU a period.
    pub cpu_quota: Option<i64>,
    /// Length of a period in microseconds, 100000 when absent.
    pub cpu_period: Option<u64>,
    /// Bytes of memory.
    pub memory_limit: Option<u64>,
    /// Number of processes and threads.
    pub pids_limit: Option<u64>,
    /// CPUs, such as `0-1`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, such as `0`.
    pub cpuset_mems: Option<String>,
}

impl Resources {
    /// Converts requests and limits as kubelet does (`pkg/kubelet/cm/helpers_linux.go`): CPU in thousandths, memory
    /// in bytes. A limit without a request counts as the request.
    pub fn from_requests(
        cpu_request: Option<u64>,
        cpu_limit: Option<u64>,
        memory_limit: Option<u64>,
    ) -> Self {
        const PERIOD: u64 = 100_000;
        let shares = cpu_request.or(cpu_limit).unwrap_or(0) * 1024 / 1000;
        let quota = cpu_limit
            .filter(|&limit| limit > 0)
            .map(|limit| (limit * PERIOD / 1000).max(1000));
        Self {
            cpu_shares: Some(shares.clamp(2, 262_144)),
            cpu_quota: quota.map(|quota| i64::try_from(quota).unwrap_or(i64::MAX)),
            cpu_period: quota.map(|_| PERIOD),
            memory_limit: memory_limit.filter(|&limit| limit > 0),
            ..Self::default()
        }
    }
}

/// `securityContext.capabilities`: names with or without `CAP_`, or `ALL`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// In addition to the default set.
    pub add: Vec<String>,
    /// Taken from the default set.
    pub drop: Vec<String>,
}

/// System call filter of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The filter container runtimes agree on (containerd's default profile).
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
}

/// A device of the node that a container may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path of the device on the node.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: String,
    /// `r`, `w`, `m` (mknod) in any combination.
    pub permissions: String,
}

/// A limit of `setrlimit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Name as in the OCI runtime specification, such as `RLIMIT_NOFILE`.
    pub kind: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// A process to run inside a running container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// `NAME=value`, in addition to the container's environment.
    pub env: Vec<String>,
    /// Working directory; the container's when absent.
    pub cwd: Option<String>,
    /// Who runs it; the container's user when absent.
    pub user: Option<User>,
    /// Give it a terminal: standard error is joined with standard output.
    pub tty: bool,
    /// Terminal size at the start, (columns, rows).
    pub size: Option<(u16, u16)>,
    /// Connect standard input; without, it reads end of file.
    pub stdin: bool,
}
