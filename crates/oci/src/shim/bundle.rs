//! A container as an OCI runtime wants it described: `config.json` of a bundle, and the process of an exec. It says the
//! same as our launcher does. Upstream counterpart: containerd's `pkg/oci` and `internal/cri/server/container_create`.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use coracle_kernel::cgroup::{DeviceKind, DeviceRule};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, BoxBuilder, Capability, Linux, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder,
    LinuxCpuBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder,
    LinuxDeviceType, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxPidsBuilder, LinuxResourcesBuilder, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
    Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder,
    RootBuilder, SpecBuilder, User, UserBuilder,
};
use rustix::process::Pid;
use rustix::thread::CapabilitySet;

use crate::launch::{self, Failure, Identity, When};
use crate::record::{ContainerDirectory, PodDirectory, PodRecord};
use crate::spec::{ContainerSpec, ExecSpec, MountSource, Propagation, Seccomp};

/// `config.json` of a container. `reaper` is the first process of the PID namespace that the pod shares, if it does.
pub(super) fn config(
    pod: &PodRecord,
    pod_directory: &PodDirectory,
    directory: &ContainerDirectory,
    spec: &ContainerSpec,
    reaper: Option<Pid>,
) -> Result<Vec<u8>, String> {
    let capabilities = capabilities(spec)?;
    let identity = identify(directory, &spec.user)?;
    let env = launch::environment(&pod.spec, spec, &[], &identity, spec.tty);
    let process = process(
        spec,
        &spec.argv,
        env,
        &spec.cwd,
        &identity,
        capabilities,
        spec.tty,
        None,
    );
    let build = || -> Result<_, OciSpecError> {
        SpecBuilder::default()
            .version("1.0.2")
            .root(
                RootBuilder::default()
                    .path("rootfs")
                    .readonly(spec.read_only_rootfs)
                    .build()?,
            )
            .process(process?)
            .mounts(mounts(pod, pod_directory, directory, spec)?)
            .linux(linux(pod, spec, capabilities, reaper)?)
            .build()
    };
    let mut config = build().map_err(|error| format!("build config.json: {error}"))?;
    // The pod has one already.
    config.set_hostname(None);
    serde_json::to_vec(&config).map_err(|error| format!("write config.json: {error}"))
}

/// The process of an exec, as `runc exec --process` reads it.
pub(super) fn exec_process(
    pod: &PodRecord,
    directory: &ContainerDirectory,
    spec: &ContainerSpec,
    exec: &ExecSpec,
) -> Result<Vec<u8>, String> {
    let capabilities = capabilities(spec)?;
    let identity = identify(directory, exec.user.as_ref().unwrap_or(&spec.user))?;
    let env = launch::environment(&pod.spec, spec, &exec.env, &identity, exec.tty);
    let cwd = exec.cwd.as_deref().unwrap_or(&spec.cwd);
    let process = process(
        spec,
        &exec.argv,
        env,
        cwd,
        &identity,
        capabilities,
        exec.tty,
        exec.size,
    )
    .map_err(|error| format!("build process: {error}"))?;
    serde_json::to_vec(&process).map_err(|error| format!("write process: {error}"))
}

/// An OCI runtime fails when it is asked for more than there is; containerd too asks for what it has itself.
fn capabilities(spec: &ContainerSpec) -> Result<CapabilitySet, String> {
    let wanted = launch::wanted_capabilities(&spec.capabilities, spec.privileged)?;
    Ok(launch::available_capabilities(wanted))
}

fn identify(directory: &ContainerDirectory, user: &crate::spec::User) -> Result<Identity, String> {
    launch::identify(&directory.rootfs(), user).map_err(|Failure(message)| message)
}

#[expect(
    clippy::too_many_arguments,
    reason = "what a container's and an exec's process have in common"
)]
fn process(
    spec: &ContainerSpec,
    argv: &[String],
    env: Vec<String>,
    cwd: &str,
    identity: &Identity,
    capabilities: CapabilitySet,
    tty: bool,
    size: Option<(u16, u16)>,
) -> Result<Process, OciSpecError> {
    let mut process = ProcessBuilder::default()
        .terminal(tty)
        .user(user(identity)?)
        .args(argv)
        .env(env)
        .cwd(if cwd.is_empty() { "/" } else { cwd })
        .capabilities(capability_sets(capabilities)?)
        .rlimits(rlimits(spec)?)
        .no_new_privileges(spec.no_new_privileges)
        .oom_score_adj(spec.oom_score_adj);
    if let Some((columns, rows)) = size {
        process = process.console_size(BoxBuilder::default().width(columns).height(rows).build()?);
    }
    process.build()
}

fn user(identity: &Identity) -> Result<User, OciSpecError> {
    UserBuilder::default()
        .uid(identity.uid)
        .gid(identity.gid)
        .additional_gids(identity.groups.clone())
        .build()
}

fn capability_sets(capabilities: CapabilitySet) -> Result<LinuxCapabilities, OciSpecError> {
    let names = launch::capability_names(capabilities).into_iter();
    let set: HashSet<Capability> = names
        .map(|name| Ok(serde_json::from_value(name.into())?))
        .collect::<Result<_, OciSpecError>>()?;
    LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
}

fn rlimits(spec: &ContainerSpec) -> Result<Vec<PosixRlimit>, OciSpecError> {
    let limit = |limit: &crate::spec::Rlimit| {
        let kind: PosixRlimitType = serde_json::from_value(limit.kind.clone().into())
            .map_err(|error| OciSpecError::Other(format!("resource limit {:?}: {error}", limit.kind)))?;
        PosixRlimitBuilder::default()
            .typ(kind)
            .soft(limit.soft)
            .hard(limit.hard)
            .build()
    };
    spec.rlimits.iter().map(limit).collect()
}

fn mounts(
    pod: &PodRecord,
    pod_directory: &PodDirectory,
    directory: &ContainerDirectory,
    spec: &ContainerSpec,
) -> Result<Vec<Mount>, OciSpecError> {
    let mount = |kind: &str, source: &Path, destination: &str, options: &[&str]| {
        MountBuilder::default()
            .typ(kind)
            .source(source)
            .destination(destination)
            .options(
                options
                    .iter()
                    .map(|option| (*option).to_owned())
                    .collect::<Vec<_>>(),
            )
            .build()
    };
    let new =
        |kind: &str, destination: &str, options: &[&str]| mount(kind, Path::new(kind), destination, options);
    let guard = if spec.privileged { "rw" } else { "ro" };
    let shm = if pod.spec.host_ipc {
        "/dev/shm".into()
    } else {
        pod_directory.shm()
    };
    let mut mounts = vec![
        new("proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        new(
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        new(
            "devpts",
            "/dev/pts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        )?,
        mount("bind", &shm, "/dev/shm", &["rbind", "rprivate", "rw"])?,
        new("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
        new("sysfs", "/sys", &["nosuid", "noexec", "nodev", guard])?,
        new(
            "cgroup",
            "/sys/fs/cgroup",
            &["nosuid", "noexec", "nodev", "relatime", guard],
        )?,
    ];
    let mut volumes: Vec<_> = spec.mounts.iter().collect();
    let message = directory.termination_log();
    if !spec.termination_message_path.is_empty() {
        mounts.push(mount(
            "bind",
            &message,
            &spec.termination_message_path,
            &["rbind", "rprivate", "rw"],
        )?);
    }
    volumes.sort_by_key(|volume| Path::new(&volume.destination).components().count());
    for volume in volumes {
        let access = if volume.read_only { "ro" } else { "rw" };
        mounts.push(match &volume.source {
            MountSource::Bind(source) => {
                let propagation = match volume.propagation {
                    Propagation::Private => "rprivate",
                    Propagation::HostToContainer => "rslave",
                    Propagation::Bidirectional => "rshared",
                };
                mount(
                    "bind",
                    source,
                    &volume.destination,
                    &["rbind", propagation, access],
                )?
            }
            MountSource::Tmpfs { size } => {
                let size = size.map(|size| format!("size={size}"));
                let mut options = vec!["nosuid", "nodev", "mode=1777", access];
                options.extend(size.as_deref());
                new("tmpfs", &volume.destination, &options)?
            }
        });
    }
    Ok(mounts)
}

fn linux(
    pod: &PodRecord,
    spec: &ContainerSpec,
    capabilities: CapabilitySet,
    reaper: Option<Pid>,
) -> Result<Linux, OciSpecError> {
    let rules = launch::allowed_devices(spec).map_err(|error| OciSpecError::Other(error.to_string()))?;
    let resources = &spec.resources;
    let mut cpu = LinuxCpuBuilder::default();
    cpu = resources
        .cpu_shares
        .into_iter()
        .fold(cpu, LinuxCpuBuilder::shares);
    cpu = resources.cpu_quota.into_iter().fold(cpu, LinuxCpuBuilder::quota);
    cpu = resources
        .cpu_period
        .into_iter()
        .fold(cpu, LinuxCpuBuilder::period);
    let mut memory = LinuxMemoryBuilder::default();
    if let Some(limit) = resources.memory_limit {
        memory = memory.limit(i64::try_from(limit).unwrap_or(i64::MAX));
    }
    let mut limits = LinuxResourcesBuilder::default()
        .devices(rules.iter().map(device_rule).collect::<Result<Vec<_>, _>>()?)
        .cpu(cpu.build()?)
        .memory(memory.build()?);
    if let Some(pids) = resources.pids_limit {
        limits = limits.pids(
            LinuxPidsBuilder::default()
                .limit(i64::try_from(pids).unwrap_or(i64::MAX))
                .build()?,
        );
    }
    let bidirectional = spec
        .mounts
        .iter()
        .any(|mount| mount.propagation == Propagation::Bidirectional);
    let unmasked = spec.privileged || !spec.mask_paths;
    let paths = |paths: &[&str]| {
        let shown = paths.iter().filter(|_| !unmasked);
        shown.map(|path| (*path).to_owned()).collect::<Vec<_>>()
    };
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(pod, reaper)?)
        .cgroups_path(Path::new("/").join(&pod.cgroup).join(&spec.id))
        .resources(limits.build()?)
        .devices(devices(spec)?)
        .rootfs_propagation(if bidirectional { "shared" } else { "rslave" })
        .masked_paths(paths(&launch::MASKED_PATHS))
        .readonly_paths(paths(&launch::READ_ONLY_PATHS));
    if spec.seccomp == Seccomp::RuntimeDefault && !spec.privileged {
        linux = linux.seccomp(seccomp(capabilities)?);
    }
    linux.build()
}

/// Those a container has of its own or has to join; the others it inherits from the shim, which is in the pod's.
fn namespaces(pod: &PodRecord, reaper: Option<Pid>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let mut namespaces = vec![
        LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Mount)
            .build()?,
    ];
    if !pod.spec.host_pid {
        let mut pids = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid);
        if let Some(reaper) = reaper {
            pids = pids.path(format!("/proc/{}/ns/pid", reaper.as_raw_pid()));
        }
        namespaces.push(pids.build()?);
    }
    Ok(namespaces)
}

fn device_kind(kind: DeviceKind) -> LinuxDeviceType {
    match kind {
        DeviceKind::All => LinuxDeviceType::A,
        DeviceKind::Block => LinuxDeviceType::B,
        DeviceKind::Character => LinuxDeviceType::C,
    }
}

fn device_rule(rule: &DeviceRule) -> Result<LinuxDeviceCgroup, OciSpecError> {
    let access: String = [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')]
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, letter)| letter)
        .collect();
    let mut device = LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(device_kind(rule.kind))
        .access(access);
    device = rule
        .major
        .into_iter()
        .fold(device, |device, major| device.major(i64::from(major)));
    device = rule
        .minor
        .into_iter()
        .fold(device, |device, minor| device.minor(i64::from(minor)));
    device.build()
}

fn devices(spec: &ContainerSpec) -> Result<Vec<LinuxDevice>, OciSpecError> {
    let failed = |error: std::io::Error| OciSpecError::Other(error.to_string());
    let mut nodes = Vec::new();
    for device in &spec.devices {
        nodes.push(launch::device_stat(&device.host_path, &device.container_path).map_err(failed)?);
    }
    if spec.privileged {
        nodes.extend(launch::host_devices().map_err(failed)?);
    }
    nodes
        .into_iter()
        .map(|node| {
            LinuxDeviceBuilder::default()
                .path(node.path)
                .typ(device_kind(node.kind))
                .major(node.major)
                .minor(node.minor)
                .file_mode(node.mode)
                .uid(node.uid)
                .gid(node.gid)
                .build()
        })
        .collect()
}

fn seccomp(capabilities: CapabilitySet) -> Result<LinuxSeccomp, OciSpecError> {
    let mut always = Vec::new();
    let mut syscalls: Vec<LinuxSyscall> = Vec::new();
    let mut by_call = BTreeMap::new();
    for ((name, _), when) in launch::default_profile(capabilities) {
        by_call.insert(name.trim_start_matches("SYS_").to_owned(), when);
    }
    for (name, when) in by_call {
        let conditions: Vec<Vec<LinuxSeccompArg>> = match when {
            When::Always => {
                always.push(name);
                continue;
            }
            When::Never => continue,
            When::Unknown => {
                let unknown = LinuxSyscallBuilder::default()
                    .names(vec![name])
                    .action(LinuxSeccompAction::ScmpActErrno)
                    .errno_ret(libc::ENOSYS.cast_unsigned());
                syscalls.push(unknown.build()?);
                continue;
            }
            When::Not(index, value) => vec![vec![argument(
                index,
                value,
                None,
                LinuxSeccompOperator::ScmpCmpNe,
            )?]],
            When::Clear(index, mask) => {
                vec![vec![argument(
                    index,
                    mask,
                    Some(0),
                    LinuxSeccompOperator::ScmpCmpMaskedEq,
                )?]]
            }
            When::OneOf(index, values) => values
                .iter()
                .map(|value| {
                    Ok(vec![argument(
                        index,
                        *value,
                        None,
                        LinuxSeccompOperator::ScmpCmpEq,
                    )?])
                })
                .collect::<Result<_, OciSpecError>>()?,
        };
        for args in conditions {
            let allow = LinuxSyscallBuilder::default()
                .names(vec![name.clone()])
                .action(LinuxSeccompAction::ScmpActAllow);
            syscalls.push(allow.args(args).build()?);
        }
    }
    syscalls.push(
        LinuxSyscallBuilder::default()
            .names(always)
            .action(LinuxSeccompAction::ScmpActAllow)
            .build()?,
    );
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .architectures(architecture().into_iter().collect::<Vec<_>>())
        .syscalls(syscalls)
        .build()
}

fn architecture() -> Option<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => Some(Arch::ScmpArchX86_64),
        "aarch64" => Some(Arch::ScmpArchAarch64),
        _ => None,
    }
}

fn argument(
    index: u8,
    value: u64,
    second: Option<u64>,
    operator: LinuxSeccompOperator,
) -> Result<LinuxSeccompArg, OciSpecError> {
    let argument = LinuxSeccompArgBuilder::default()
        .index(usize::from(index))
        .value(value)
        .op(operator);
    second
        .into_iter()
        .fold(argument, LinuxSeccompArgBuilder::value_two)
        .build()
}
