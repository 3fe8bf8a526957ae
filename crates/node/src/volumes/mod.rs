//! The volumes of a pod on the node: emptyDir, hostPath, configMap, secret, downwardAPI, projected.
//! Upstream: `pkg/kubelet/volumemanager`, `pkg/volume`.
//!
//! Paths are functions of pod and volume, so nothing has to be remembered: setting up again finds what is there,
//! changes what has changed, and is how ConfigMaps reach running containers.

pub mod atomic_writer;
mod host_path;
mod projection;
mod token;

pub use token::Tokens;

use crate::kubelet::{Kubelet, describe};
use atomic_writer::{File, Payload};
use coracle_kernel::{mount, root};
use coracle_pods::env::downward_api;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume, VolumeProjection};
use projection::{Selection, mode};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Permission bits of files that say nothing else.
const DEFAULT_MODE: u32 = 0o644;

/// Sets up all volumes of the pod. Returns when something has to be renewed. `pod_ips` is for the downward API.
pub async fn set_up(
    kubelet: &Arc<Kubelet>,
    pod: &Arc<Pod>,
    tokens: &Tokens,
    pod_ips: &[IpAddr],
) -> Result<Option<Timestamp>, String> {
    let mut renew_at: Option<Timestamp> = None;
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|s| s.volumes.as_deref())
        .unwrap_or_default();
    let group = fs_group(pod);
    for volume in volumes {
        let failed =
            |error: String| format!("MountVolume.SetUp failed for volume {:?} : {error}", volume.name);
        let path = path(kubelet, pod, volume);
        let files = files(kubelet, pod, volume, tokens, pod_ips)
            .await
            .map_err(failed)?;
        if let Some((_, Some(at))) = &files {
            renew_at = Some(renew_at.map_or(*at, |known| known.min(*at)));
        }
        let volume = volume.clone();
        let made = tokio::task::spawn_blocking(move || match (files, &volume.empty_dir, &volume.host_path) {
            (Some((payload, _)), _, _) => fs::create_dir_all(&path)
                .and_then(|()| atomic_writer::write(&path, &payload, group))
                .map(|_| ())
                .map_err(|error| error.to_string()),
            (None, Some(source), _) => empty_dir(&path, source, group),
            (None, None, Some(source)) => {
                host_path::check(&path, source.type_.as_deref().unwrap_or_default())
            }
            (None, None, None) => Err("no volume plugin matched".to_owned()),
        });
        made.await
            .map_err(|error| failed(describe(&error)))?
            .map_err(failed)?;
    }
    Ok(renew_at)
}

/// Where the volume is on the node.
pub fn path(kubelet: &Kubelet, pod: &Pod, volume: &Volume) -> PathBuf {
    if let Some(source) = &volume.host_path {
        return PathBuf::from(&source.path);
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let plugin = match volume {
        Volume {
            config_map: Some(_), ..
        } => "kubernetes.io~configmap",
        Volume { secret: Some(_), .. } => "kubernetes.io~secret",
        Volume {
            projected: Some(_), ..
        } => "kubernetes.io~projected",
        Volume {
            downward_api: Some(_),
            ..
        } => "kubernetes.io~downward-api",
        _ => "kubernetes.io~empty-dir",
    };
    kubelet
        .pod_dir(uid)
        .join("volumes")
        .join(plugin)
        .join(&volume.name)
}

/// Whether a change of the pod's labels or annotations shows in its volumes.
pub fn shows_metadata(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.into_iter().any(|v| {
        let mut sources = v.projected.iter().flat_map(|p| p.sources.iter().flatten());
        v.downward_api.is_some() || sources.any(|s| s.downward_api.is_some())
    })
}

/// Unmounts and removes everything in the pod's directory. Blocks.
pub fn tear_down(pod_dir: &Path) -> Result<(), String> {
    let empty_dirs = pod_dir.join("volumes/kubernetes.io~empty-dir");
    if let Ok(entries) = fs::read_dir(&empty_dirs) {
        for entry in entries.flatten() {
            let path = entry.path();
            mount::detach(&path).map_err(|error| format!("unmount {}: {error}", path.display()))?;
        }
    }
    match root::remove_path(pod_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("remove {}: {error}", pod_dir.display()))
        }
        _ => Ok(()),
    }
}

/// `securityContext.fsGroup`.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("set up {}: {error}", path.display());
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(failed)?;
    if source.medium.as_deref() == Some("Memory") {
        let limit = source.size_limit.as_ref();
        let limit = limit
            .and_then(|q| coracle_meta::Quantity::parse(&q.0).ok())
            .map(|q| q.value().to_string());
        let options: Vec<(&str, &str)> = limit.iter().map(|size| ("size", size.as_str())).collect();
        let made = mount::filesystem("tmpfs", &options, mount::Attributes::default()).and_then(|tmpfs| {
            let target = rustix::fs::open(path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
            mount::attach(&tmpfs, &target)
        });
        made.map_err(failed)?;
    }
    chown(path, None, group).map_err(failed)?;
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)
}

type Files = Option<(Payload, Option<Timestamp>)>;

/// The files of a volume that consists of files.
async fn files(
    kubelet: &Arc<Kubelet>,
    pod: &Pod,
    volume: &Volume,
    tokens: &Tokens,
    pod_ips: &[IpAddr],
) -> Result<Files, String> {
    let default = |m: Option<i32>| m.map_or(DEFAULT_MODE, mode);
    let source = if let Some(source) = &volume.config_map {
        let selection = Selection {
            items: source.items.as_ref(),
            default_mode: default(source.default_mode),
            optional: source.optional == Some(true),
        };
        config_map(kubelet, pod, &source.name, &selection).await?
    } else if let Some(source) = &volume.secret {
        let selection = Selection {
            items: source.items.as_ref(),
            default_mode: default(source.default_mode),
            optional: source.optional == Some(true),
        };
        secret(
            kubelet,
            pod,
            source.secret_name.as_deref().unwrap_or_default(),
            &selection,
        )
        .await?
    } else if let Some(source) = &volume.downward_api {
        let context = context(kubelet, pod_ips);
        projection::downward(pod, source.items.as_ref(), default(source.default_mode), &context)?
    } else if let Some(source) = &volume.projected {
        let mut payload = Payload::new();
        let mut renew_at: Option<Timestamp> = None;
        for part in source.sources.iter().flatten() {
            let (files, at) =
                projected(kubelet, pod, part, default(source.default_mode), tokens, pod_ips).await?;
            payload.extend(files);
            renew_at = [renew_at, at].into_iter().flatten().min();
        }
        return Ok(Some((payload, renew_at)));
    } else {
        return Ok(None);
    };
    Ok(Some((source, None)))
}

async fn projected(
    kubelet: &Arc<Kubelet>,
    pod: &Pod,
    part: &VolumeProjection,
    default_mode: u32,
    tokens: &Tokens,
    pod_ips: &[IpAddr],
) -> Result<(Payload, Option<Timestamp>), String> {
    if let Some(source) = &part.service_account_token {
        let token = tokens.get(kubelet, pod, source).await?;
        let file = File {
            mode: default_mode,
            data: token.text.into_bytes(),
        };
        return Ok((Payload::from([(source.path.clone(), file)]), Some(token.renew_at)));
    }
    let selection = |items, optional| Selection {
        items,
        default_mode,
        optional: optional == Some(true),
    };
    let payload = if let Some(source) = &part.config_map {
        config_map(
            kubelet,
            pod,
            &source.name,
            &selection(source.items.as_ref(), source.optional),
        )
        .await?
    } else if let Some(source) = &part.secret {
        secret(
            kubelet,
            pod,
            &source.name,
            &selection(source.items.as_ref(), source.optional),
        )
        .await?
    } else if let Some(source) = &part.downward_api {
        projection::downward(
            pod,
            source.items.as_ref(),
            default_mode,
            &context(kubelet, pod_ips),
        )?
    } else {
        return Err("no projection matched".to_owned());
    };
    Ok((payload, None))
}

async fn config_map(
    kubelet: &Kubelet,
    pod: &Pod,
    name: &str,
    selection: &Selection<'_>,
) -> Result<Payload, String> {
    let (namespace, uid) = names(pod);
    let object = kubelet.config_maps.get(namespace, name, uid).await?;
    projection::config_map(object.as_deref(), name, selection)
}

async fn secret(
    kubelet: &Kubelet,
    pod: &Pod,
    name: &str,
    selection: &Selection<'_>,
) -> Result<Payload, String> {
    let (namespace, uid) = names(pod);
    let object = kubelet.secrets.get(namespace, name, uid).await?;
    projection::secret(object.as_deref(), name, selection)
}

fn names(pod: &Pod) -> (&str, &str) {
    (
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.uid.as_deref().unwrap_or_default(),
    )
}

fn context<'a>(kubelet: &'a Kubelet, pod_ips: &'a [IpAddr]) -> downward_api::Context<'a> {
    downward_api::Context {
        pod_ips,
        host_ips: &kubelet.config.addresses,
        allocatable: kubelet.resources.allocatable(),
    }
}
