//! From a container of a pod to what the runtime is asked to run. Upstream: `generateContainerConfig`,
//! `GenerateRunContainerOptions`, `makeMounts`.

use crate::kubelet::Kubelet;
use crate::{security_context, volumes};
use coracle_kernel::root::Root;
use coracle_meta::Quantity;
use coracle_oci::{ContainerSpec, ImageConfig, Mount, MountSource, Propagation, Resources};
use coracle_pods::env::{self, Sources, downward_api};
use coracle_pods::{etc_hosts, hostname, qos};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, VolumeMount};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The annotation that keeps the reference which the pod named: a change of it restarts the container.
pub const IMAGE_ANNOTATION: &str = "io.kubernetes.container.image";

/// Everything that a container's configuration depends on besides the node.
pub struct Request<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// The id it gets.
    pub id: String,
    /// Its restart count.
    pub attempt: u32,
    /// The image's configuration.
    pub image: &'a ImageConfig,
    /// The image's layers.
    pub layers: Vec<PathBuf>,
    /// The digest.
    pub image_id: String,
    /// The pod's addresses.
    pub pod_ips: &'a [IpAddr],
}

/// The spec for the runtime. The error is the message of `CreateContainerConfigError`.
pub async fn generate(kubelet: &Kubelet, request: Request<'_>) -> Result<ContainerSpec, String> {
    let Request {
        pod,
        container,
        image,
        ..
    } = request;
    let own = environment(kubelet, pod, container, request.pod_ips).await?;
    let argv = argv(container, image, &own);
    if argv.is_empty() {
        return Err("no command specified".to_owned());
    }
    let mut variables: Vec<String> = image
        .env
        .iter()
        .filter(|line| {
            let name = line.split('=').next().unwrap_or_default();
            own.iter().all(|(own, _)| own != name)
        })
        .cloned()
        .collect();
    variables.extend(own.iter().map(|(name, value)| format!("{name}={value}")));
    let working_dir = container.working_dir.clone().filter(|d| !d.is_empty());
    let termination = container.termination_message_path.clone();
    let mut spec = ContainerSpec {
        id: request.id,
        name: container.name.clone(),
        attempt: request.attempt,
        image: request.image_id,
        layers: request.layers,
        argv,
        env: variables,
        cwd: working_dir.unwrap_or_else(|| image.working_dir.clone()),
        mounts: mounts(kubelet, pod, container, &own)?,
        resources: resources(container),
        oom_score_adj: oom_score_adj(pod, container, kubelet.resources.memory()),
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        log_path: PathBuf::from(&container.name).join(format!("{}.log", request.attempt)),
        termination_message_path: termination.unwrap_or_else(|| "/dev/termination-log".to_owned()),
        annotations: BTreeMap::from([(
            IMAGE_ANNOTATION.to_owned(),
            container.image.clone().unwrap_or_default(),
        )]),
        ..ContainerSpec::default()
    };
    security_context::apply(&mut spec, pod, container, &image.user)?;
    Ok(spec)
}

/// Writes the files that all containers of the pod share: `/etc/hosts`, `/etc/resolv.conf`. Blocks.
pub fn write_pod_files(kubelet: &Kubelet, pod: &Pod, pod_ips: &[IpAddr]) -> std::io::Result<()> {
    let directory = kubelet.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    fs::create_dir_all(&directory)?;
    let spec = pod.spec.as_ref();
    let aliases = spec.and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    let hosts = if spec.is_some_and(|s| s.host_network == Some(true)) {
        etc_hosts::of_node(&fs::read_to_string("/etc/hosts").unwrap_or_default(), aliases)
    } else {
        let (name, domain) = hostname::hostname_and_domain(pod, &kubelet.config.cluster_domain);
        etc_hosts::managed(pod_ips, &name, &domain, aliases)
    };
    fs::write(directory.join("etc-hosts"), hosts)?;
    fs::write(directory.join("resolv.conf"), kubelet.resolv_conf(pod).render())
}

async fn environment(
    kubelet: &Kubelet,
    pod: &Pod,
    container: &Container,
    pod_ips: &[IpAddr],
) -> Result<Vec<(String, String)>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let (maps, secrets): (BTreeSet<String>, BTreeSet<String>) = env::references(container);
    let mut config_maps: BTreeMap<String, Arc<ConfigMap>> = BTreeMap::new();
    for name in maps {
        if let Some(object) = kubelet.config_maps.get(namespace, &name, uid).await? {
            config_maps.insert(name, object);
        }
    }
    let mut found: BTreeMap<String, Arc<Secret>> = BTreeMap::new();
    for name in secrets {
        if let Some(object) = kubelet.secrets.get(namespace, &name, uid).await? {
            found.insert(name, object);
        }
    }
    let services = kubelet.services.list().await?;
    let sources = Sources {
        config_maps: &config_maps,
        secrets: &found,
        services: &services,
        downward_api: downward_api::Context {
            pod_ips,
            host_ips: &kubelet.config.addresses,
            allocatable: kubelet.resources.allocatable(),
        },
    };
    env::variables(pod, container, &sources)
}

/// `command` replaces the entrypoint, and with it the image's arguments; `args` replaces the arguments.
fn argv(container: &Container, image: &ImageConfig, variables: &[(String, String)]) -> Vec<String> {
    let expand =
        |list: &Option<Vec<String>>| env::expand_command(list.as_deref().unwrap_or_default(), variables);
    let (command, args) = (expand(&container.command), expand(&container.args));
    match (command.is_empty(), args.is_empty()) {
        (false, _) => [command, args].concat(),
        (true, false) => [image.entrypoint.clone(), args].concat(),
        (true, true) => [image.entrypoint.clone(), image.cmd.clone()].concat(),
    }
}

fn mounts(
    kubelet: &Kubelet,
    pod: &Pod,
    container: &Container,
    variables: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let directory = kubelet.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    let wanted = container.volume_mounts.as_deref().unwrap_or_default();
    let bind = |source: PathBuf, destination: &str, read_only: bool| Mount {
        source: MountSource::Bind(source),
        destination: destination.to_owned(),
        read_only,
        propagation: Propagation::Private,
    };
    let mut mounts = Vec::new();
    for mount in wanted {
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        let volume = volumes.into_iter().find(|v| v.name == mount.name);
        let volume = volume.ok_or_else(|| format!("volume {:?} not found", mount.name))?;
        let mut source = volumes::path(kubelet, pod, volume);
        if let Some(sub_path) = sub_path(mount, variables)? {
            source = resolve_sub_path(&source, &sub_path)?;
        }
        // Their files are replaced by renames; writes would be lost.
        let always_read_only = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some();
        let destination = absolute(&mount.mount_path);
        let mut made = bind(
            source,
            &destination,
            always_read_only || mount.read_only == Some(true),
        );
        made.propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::Private,
        };
        mounts.push(made);
    }
    for (file, path) in [("etc-hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")] {
        if wanted.iter().all(|m| m.mount_path != path) {
            mounts.push(bind(directory.join(file), path, false));
        }
    }
    Ok(mounts)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

fn sub_path(mount: &VolumeMount, variables: &[(String, String)]) -> Result<Option<String>, String> {
    let path = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => path.clone(),
        (_, Some(expression)) if !expression.is_empty() => {
            env::expand_command(std::slice::from_ref(expression), variables).concat()
        }
        _ => return Ok(None),
    };
    let bad =
        Path::new(&path).is_absolute() || path.split('/').any(|part| part == "..") || path.contains("$(");
    if bad {
        Err(format!("sub path {path:?} is not allowed"))
    } else {
        Ok(Some(path))
    }
}

/// The place of a sub path on the node. A container may have planted links in the volume, so they are followed
/// inside the volume only; a directory is made when nothing is there.
fn resolve_sub_path(volume: &Path, sub_path: &str) -> Result<PathBuf, String> {
    let failed =
        |error: std::io::Error| format!("failed to prepare subPath {sub_path:?} of the volume: {error}");
    let root = Root::open_path(volume).map_err(failed)?;
    let handle = match root.open(sub_path, rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            root.create_dir_all(Path::new(sub_path))
        }
        other => other,
    };
    let handle = handle.map_err(failed)?;
    fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd())).map_err(failed)
}

fn amount(
    list: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
    name: &str,
) -> Option<Quantity> {
    Quantity::parse(&list?.get(name)?.0).ok()
}

fn resources(container: &Container) -> Resources {
    let resources = container.resources.as_ref();
    let requests = resources.and_then(|r| r.requests.as_ref());
    let limits = resources.and_then(|r| r.limits.as_ref());
    let milli = |q: Quantity| u64::try_from(q.milli_value()).ok();
    Resources::from_requests(
        amount(requests, "cpu").and_then(milli),
        amount(limits, "cpu").and_then(milli),
        amount(limits, "memory").and_then(|q| u64::try_from(q.value()).ok()),
    )
}

/// Who is killed first when memory is short: the less was asked for, the sooner. Upstream: `qos/policy.go`.
fn oom_score_adj(pod: &Pod, container: &Container, capacity: u64) -> i32 {
    let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    match qos::class(pod) {
        _ if priority >= 2_000_000_000 => -997,
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
            let request = amount(requests, "memory").map_or(0, |q| q.value().max(0));
            let share = i128::from(request) * 1000 / i128::from(capacity.max(1));
            i32::try_from(1000 - share).unwrap_or(3).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn container(value: Value) -> Container {
        from_value(value).expect("a container")
    }

    #[test]
    fn command_and_args_replace_what_the_image_says() {
        let image = ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            ..ImageConfig::default()
        };
        let of = |value: Value| argv(&container(value), &image, &[("A".into(), "1".into())]);
        assert_eq!(of(json!({"name": "c"})), ["/entry", "default"]);
        assert_eq!(
            of(json!({"name": "c", "args": ["$(A)", "$(B)"]})),
            ["/entry", "1", "$(B)"]
        );
        assert_eq!(of(json!({"name": "c", "command": ["/x"]})), ["/x"]);
        assert_eq!(
            of(json!({"name": "c", "command": ["/x"], "args": ["y"]})),
            ["/x", "y"]
        );
    }

    #[test]
    fn memory_asked_for_protects() {
        let of = |resources: Value| {
            let pod: Pod = from_value(
                json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": resources}]}}),
            )
            .expect("a pod");
            let container = &pod.spec.as_ref().expect("spec").containers[0];
            oom_score_adj(&pod, container, 1 << 30)
        };
        assert_eq!(of(json!({})), 1000);
        assert_eq!(of(json!({"requests": {"memory": "256Mi"}})), 750);
        assert_eq!(of(json!({"requests": {"memory": "1Gi"}})), 3);
        assert_eq!(
            of(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}})),
            -997
        );
    }

    #[test]
    fn sub_paths_stay_in_the_volume() {
        let volume = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink("/etc", volume.path().join("evil")).expect("a link");
        let inside = resolve_sub_path(volume.path(), "a/b").expect("made");
        assert_eq!(inside, volume.path().canonicalize().expect("path").join("a/b"));
        let evil = resolve_sub_path(volume.path(), "evil/x").expect("made inside");
        assert!(
            evil.starts_with(volume.path().canonicalize().expect("path")),
            "{evil:?}"
        );
        let mount = |path: &str| VolumeMount {
            sub_path: Some(path.into()),
            ..VolumeMount::default()
        };
        assert!(sub_path(&mount("../x"), &[]).is_err());
        assert!(sub_path(&mount("/x"), &[]).is_err());
    }
}
