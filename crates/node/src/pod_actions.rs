//! Executes the actions that a pod's worker decided. Upstream: `kuberuntime.SyncPod` and what it calls.

use crate::container_config;
use crate::kubelet::{Kubelet, describe};
use crate::pod_worker::Message;
use crate::volumes::{self, Tokens};
use crate::{image_manager, lifecycle, logs, probe, sandbox};
use coracle_oci::{Error, Exit};
use coracle_pods::container::{Role, find};
use coracle_pods::{Action, ExitedContainer, Observation, PodEvent, StartFailure};
use coracle_reconcile::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What the actions of one pod share.
pub struct PodContext {
    /// The node.
    pub kubelet: Arc<Kubelet>,
    /// The pod.
    pub uid: String,
    /// Tokens of its projected volumes.
    pub tokens: Tokens,
    outbox: mpsc::UnboundedSender<Message>,
}

impl PodContext {
    /// For a pod whose task reads what is told.
    pub fn new(kubelet: Arc<Kubelet>, uid: String, outbox: mpsc::UnboundedSender<Message>) -> Self {
        Self {
            kubelet,
            uid,
            tokens: Tokens::default(),
            outbox,
        }
    }

    /// Tells the pod's task; it may be gone.
    pub fn tell(&self, observation: Observation) {
        let _ = self.outbox.send(Message::Observed(observation));
    }

    /// Records an Event about the pod or one of its containers.
    pub fn record(&self, pod: &Pod, event: &PodEvent) {
        let meta = &pod.metadata;
        let mut regarding = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        });
        if let Some(name) = &event.container {
            let list = match find(pod, name).map(|(role, _)| role) {
                Some(Role::Init | Role::Sidecar) => "initContainers",
                Some(Role::Ephemeral) => "ephemeralContainers",
                _ => "containers",
            };
            regarding["fieldPath"] = json!(format!("spec.{list}{{{name}}}"));
        }
        let class = if event.warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        self.kubelet
            .recorder
            .event(regarding, class, event.reason, &event.message);
    }
}

/// A new id in the form that runtimes use: 64 hexadecimal digits.
pub fn new_container_id() -> String {
    let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    format!("{}{}", a.simple(), b.simple())
}

/// Executes an action; `new_id` is for a container to be started. Returns what the worker is to know.
pub async fn execute(
    context: &Arc<PodContext>,
    pod: &Arc<Pod>,
    pod_ips: &[IpAddr],
    action: Action,
    new_id: String,
) -> Option<Observation> {
    let kubelet = &context.kubelet;
    let pod_ip = pod_ips.first().copied();
    let seek = |name: &str| find(pod, name).map(|(_, container)| container.into_owned());
    Some(match action {
        Action::MountVolumes => match mount_volumes(context, pod, pod_ips).await {
            Ok(()) => Observation::VolumesMounted,
            Err(message) => Observation::VolumesFailed { message },
        },
        Action::CreateSandbox => match sandbox::create(kubelet, pod).await {
            Ok(ips) => Observation::SandboxReady { ips },
            Err(message) => Observation::SandboxFailed { message },
        },
        Action::EnsureImage { container } => {
            let container = seek(&container)?;
            image_manager::ensure(kubelet, pod, &container, |news| context.tell(news)).await
        }
        Action::StartContainer {
            container,
            attempt,
            image_id,
        } => {
            let container = seek(&container)?;
            start_container(context, pod, &container, pod_ips, attempt, image_id, new_id).await
        }
        Action::RunPostStart { container, id } => {
            let spec = seek(&container)?;
            let hook = spec.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
            let result = match hook {
                // The container ends with its pod, and the hook with its container.
                Some(hook) => {
                    run_hook(
                        context,
                        pod,
                        &spec,
                        &id,
                        hook,
                        pod_ip,
                        Duration::from_secs(86_400),
                    )
                    .await
                }
                None => Ok(()),
            };
            Observation::PostStarted {
                container,
                id,
                result,
            }
        }
        Action::RunPreStop {
            container,
            id,
            deadline,
        } => {
            let spec = seek(&container)?;
            let hook = spec.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
            let limit = Duration::try_from(deadline.duration_since(Timestamp::now())).unwrap_or_default();
            let result = match hook {
                Some(hook) => run_hook(context, pod, &spec, &id, hook, pod_ip, limit).await,
                None => Ok(()),
            };
            Observation::PreStopped {
                container,
                id,
                result,
            }
        }
        Action::Probe {
            container,
            id,
            kind,
            timeout,
        } => {
            let spec = seek(&container)?;
            let timeout = Duration::try_from(timeout).unwrap_or(Duration::from_secs(1));
            let result = probe::probe(kubelet, &spec, &id, kind, pod_ip, timeout).await;
            Observation::Probed {
                container,
                id,
                kind,
                result,
            }
        }
        Action::AwaitDrain { deadline } => {
            let left = Duration::try_from(deadline.duration_since(Timestamp::now())).unwrap_or_default();
            let deadline = Instant::now() + left;
            let all = pod_ips.iter().map(|ip| kubelet.data_plane.drained(*ip, deadline));
            futures::future::join_all(all).await;
            Observation::Drained
        }
        Action::Signal {
            container,
            id,
            signal,
        } => {
            let spec = seek(&container);
            let signal = stop_signal(kubelet, spec.as_ref(), signal).await;
            kill(context, &id, signal).await;
            return None;
        }
        Action::Kill { id, .. } => {
            kill(context, &id, SIGKILL).await;
            return None;
        }
        Action::RemoveContainer { id } => {
            match kubelet.runtime.remove(&id).await {
                Ok(()) | Err(Error::ContainerNotFound(_)) => {}
                Err(error) => {
                    tracing::debug!(container = id, error = describe(&error), "container not removed")
                }
            }
            return None;
        }
        Action::TearDown => match sandbox::tear_down(kubelet, &context.uid).await {
            Ok(()) => Observation::TornDown,
            Err(message) => Observation::TearDownFailed { message },
        },
        // The pod's task does these itself.
        Action::DeletePod | Action::Record(_) => return None,
    })
}

/// Sets up volumes and has itself called again when a token is due.
async fn mount_volumes(context: &Arc<PodContext>, pod: &Arc<Pod>, pod_ips: &[IpAddr]) -> Result<(), String> {
    let renew_at = volumes::set_up(&context.kubelet, pod, &context.tokens, pod_ips).await?;
    if let Some(at) = renew_at {
        let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
        // Holding the sender only: the timer must not keep a pod that is gone.
        let outbox = context.outbox.downgrade();
        tokio::spawn(async move {
            tokio::time::sleep(left).await;
            if let Some(outbox) = outbox.upgrade() {
                let _ = outbox.send(Message::Refresh);
            }
        });
    }
    Ok(())
}

/// Brings the volumes of a running pod up to date; what cannot be had stays as it was.
pub async fn refresh_volumes(context: &Arc<PodContext>, pod: &Arc<Pod>, pod_ips: &[IpAddr]) {
    if let Err(message) = mount_volumes(context, pod, pod_ips).await {
        let event = PodEvent {
            warning: true,
            reason: "FailedMount",
            message,
            container: None,
        };
        context.record(pod, &event);
    }
}

async fn start_container(
    context: &PodContext,
    pod: &Pod,
    container: &Container,
    pod_ips: &[IpAddr],
    attempt: i32,
    image_id: String,
    id: String,
) -> Observation {
    let kubelet = &context.kubelet;
    let failed = |failure, message| Observation::StartFailed {
        container: container.name.clone(),
        failure,
        message,
    };
    let reference = container.image.clone().unwrap_or_default();
    let images = kubelet.images.clone();
    let wanted = image_id.clone();
    let image = match tokio::task::spawn_blocking(move || images.resolve(&wanted)).await {
        Ok(Ok(Some(image))) => image,
        Ok(Ok(None)) => return failed(StartFailure::Create, format!("image {image_id:?} not found")),
        Ok(Err(error)) => return failed(StartFailure::Create, describe(&error)),
        Err(error) => return failed(StartFailure::Create, describe(&error)),
    };
    let request = container_config::Request {
        pod,
        container,
        id: id.clone(),
        attempt: u32::try_from(attempt).unwrap_or(0),
        image: &image.config,
        layers: image.layers.clone(),
        image_id: image_id.clone(),
        pod_ips,
    };
    let spec = match container_config::generate(kubelet, request).await {
        Ok(spec) => spec,
        Err(message) => return failed(StartFailure::Config, message),
    };
    if let Err(error) = kubelet.runtime.create_container(&context.uid, spec).await {
        return failed(StartFailure::Create, describe(&error));
    }
    match kubelet.runtime.start(&id).await {
        Ok(()) => Observation::Started {
            container: container.name.clone(),
            id,
            image: reference,
            image_id,
            at: Timestamp::now(),
        },
        Err(error) => {
            let message = describe(&error);
            if let Err(error) = kubelet.runtime.remove(&id).await {
                tracing::debug!(container = id, error = describe(&error), "container not removed");
            }
            failed(StartFailure::Run, message)
        }
    }
}

async fn run_hook(
    context: &PodContext,
    pod: &Pod,
    container: &Container,
    id: &str,
    hook: &k8s_openapi::api::core::v1::LifecycleHandler,
    pod_ip: Option<IpAddr>,
    limit: Duration,
) -> Result<(), String> {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let name = format!(
        "{}_{}({})",
        text(&meta.name),
        text(&meta.namespace),
        text(&meta.uid)
    );
    lifecycle::run(&context.kubelet, &name, container, id, hook, pod_ip, limit).await
}

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

async fn kill(context: &PodContext, id: &str, signal: i32) {
    match context.kubelet.runtime.kill(id, signal).await {
        Ok(()) | Err(Error::ContainerNotFound(_)) => {}
        Err(error) => tracing::warn!(
            container = id,
            signal,
            error = describe(&error),
            "signal not sent"
        ),
    }
}

/// The pod's stop signal, or the image's, or SIGTERM.
async fn stop_signal(kubelet: &Kubelet, container: Option<&Container>, own: Option<String>) -> i32 {
    if let Some(number) = own.as_deref().and_then(signal_number) {
        return number;
    }
    let Some(reference) = container.and_then(|c| c.image.clone()) else {
        return SIGTERM;
    };
    let images = kubelet.images.clone();
    let image = tokio::task::spawn_blocking(move || images.resolve(&reference)).await;
    let Ok(Ok(Some(image))) = image else {
        return SIGTERM;
    };
    image
        .config
        .stop_signal
        .as_deref()
        .and_then(signal_number)
        .unwrap_or(SIGTERM)
}

/// `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`.
fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = name.to_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(position) = NAMES.iter().position(|n| *n == bare) {
        return i32::try_from(position + 1).ok();
    }
    let offset = |rest: &str| {
        if rest.is_empty() {
            Some(0)
        } else {
            rest.parse::<i32>().ok()
        }
    };
    let number = match (bare.strip_prefix("RTMIN"), bare.strip_prefix("RTMAX")) {
        (Some(rest), _) => 34 + offset(rest)?,
        (_, Some(rest)) => 64 + offset(rest)?,
        _ => return None,
    };
    (34..=64).contains(&number).then_some(number)
}

/// What the worker is to know of a container's end, with its termination message.
pub async fn ended(
    context: &PodContext,
    pod: &Pod,
    name: &str,
    id: String,
    attempt: i32,
    exit: Exit,
) -> ExitedContainer {
    let kubelet = &context.kubelet;
    let mut message = exit.message.clone();
    if message.is_empty()
        && let Ok(bytes) = kubelet.runtime.termination_message(&id).await
    {
        message = String::from_utf8_lossy(&bytes).into_owned();
    }
    let policy = find(pod, name).and_then(|(_, c)| c.termination_message_policy.clone());
    if message.is_empty() && exit.code != 0 && policy.as_deref() == Some("FallbackToLogsOnError") {
        let path = kubelet.log_dir(pod).join(name).join(format!("{attempt}.log"));
        let tail = tokio::task::spawn_blocking(move || logs::tail_for_message(&path)).await;
        message = tail.unwrap_or_default();
    }
    ExitedContainer {
        container: name.to_owned(),
        id,
        attempt,
        exit_code: exit.code,
        reason: exit.reason,
        message,
        started_at: exit.started_at.map_or(timestamp(exit.finished_at), timestamp),
        finished_at: timestamp(exit.finished_at),
        image_id: String::new(),
    }
}

/// The runtime's clock reading; one out of range counts as now.
pub fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_else(|_| Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (name, number) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("SIGSYS", Some(31)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGNONE", None),
            ("99", None),
        ] {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }

    #[test]
    fn ids_look_like_those_of_runtimes() {
        let id = new_container_id();
        assert_eq!(id.len(), 64);
        assert_ne!(id, new_container_id());
    }
}
