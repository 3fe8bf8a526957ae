//! Whether the Pods are ready, and why not.

use crate::diagnosis::{Code, StepName, Verdict, Walk};
use crate::evidence::{Protocol, Socket};
use crate::pod;
use crate::subject::{Subject, count, some};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

const STEP: StepName = StepName::Pods;
/// Why a container does not start because of its image. Upstream: `pkg/kubelet/images`.
const IMAGE_REASONS: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
];

/// What a container waits for that is about to be made. Upstream: `pkg/kubelet/kubelet_pods.go`.
const STARTING_REASONS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Why a Pod is not ready.
struct Cause {
    code: Code,
    message: String,
    fix: String,
}

pub(crate) fn look(subject: &Subject<'_>, walk: &mut Walk) {
    if subject.pods.is_empty() {
        return;
    }
    let (ready, not_ready): (Vec<&Pod>, Vec<&Pod>) = subject
        .pods
        .iter()
        .copied()
        .partition(|p| pod::is_ready(p) && !pod::is_ending(p));
    let text = format!("{} of {} ready", ready.len(), count(subject.pods.len(), "Pod"));
    if not_ready.is_empty() {
        walk.ok(STEP, text);
        return;
    }
    let counts = !subject.publishes_not_ready();
    let mut causes: BTreeMap<Code, (Vec<&str>, Cause)> = BTreeMap::new();
    for pod in &not_ready {
        let cause = cause(subject, pod);
        let entry = causes.entry(cause.code).or_insert_with(|| (Vec::new(), cause));
        entry.0.push(pod::name(pod));
    }
    // Pods that end are no reason while others are about to come.
    let ended = causes.remove(&Code::PodsEnded);
    if causes.is_empty() {
        causes.extend(ended.map(|ended| (Code::PodsEnded, ended)));
    }
    let mut causes: Vec<_> = causes.into_values().collect();
    causes.sort_by_key(|(pods, _)| std::cmp::Reverse(pods.len()));
    for (pods, cause) in causes {
        let who = match pods.as_slice() {
            [one] => format!("Pod {one} is"),
            many => format!("Pods {} are", some(many)),
        };
        let message = format!("{text}; {who} not ready: {}", cause.message);
        let verdict = if ready.is_empty() && counts {
            Verdict::problem(cause.code, message, cause.fix)
        } else {
            Verdict::note(cause.code, message, cause.fix)
        };
        walk.found(STEP, verdict);
    }
}

fn cause(subject: &Subject<'_>, pod: &Pod) -> Cause {
    let name = pod::name(pod);
    let cause = |code, message: String, fix: String| Cause { code, message, fix };
    let describe = || subject.kubectl(&format!("describe pod {name}"));
    if pod.metadata.deletion_timestamp.is_some() {
        return cause(
            Code::PodsEnded,
            "it is being deleted".into(),
            "start other Pods".into(),
        );
    }
    if pod::is_ending(pod) {
        let status = pod.status.as_ref();
        let reason = status
            .and_then(|s| s.reason.as_deref())
            .map(|r| format!(" ({r})"))
            .unwrap_or_default();
        return cause(
            Code::PodsEnded,
            format!("it has ended, phase {}{reason}", pod::phase(pod)),
            format!("see why: {}", describe()),
        );
    }
    if pod::node(pod).is_none() {
        let scheduled = pod::condition(pod, "PodScheduled");
        let message = scheduled
            .and_then(|c| c.message.as_deref())
            .unwrap_or("it waits for a node");
        let fix = format!("give it a node that fits, or ask for less: {}", describe());
        return cause(Code::Unschedulable, message.to_owned(), fix);
    }
    if let Some(found) = init_container(subject, pod).or_else(|| containers(subject, pod)) {
        return found;
    }
    if let Some(gate) = open_gate(pod) {
        let message = format!("its readiness gate {gate:?} is not met");
        return cause(
            Code::PodsNotReady,
            message,
            format!("whoever sets this condition has not: {}", describe()),
        );
    }
    let message = pod::condition(pod, "Ready")
        .and_then(|c| c.message.clone().or_else(|| c.reason.clone()))
        .unwrap_or_else(|| format!("its phase is {}", pod::phase(pod)));
    cause(Code::PodsNotReady, message, format!("see why: {}", describe()))
}

fn init_container(subject: &Subject<'_>, pod: &Pod) -> Option<Cause> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    let spec = pod.spec.as_ref()?;
    let sidecar = |name: &str| {
        let containers = spec.init_containers.iter().flatten();
        containers
            .filter(|c| c.name == name)
            .any(|c| c.restart_policy.as_deref() == Some("Always"))
    };
    let unfinished = statuses.iter().find(|status| {
        let finished = status
            .state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
            .is_some_and(|t| t.exit_code == 0);
        let running_sidecar = sidecar(&status.name) && status.started == Some(true);
        !finished && !running_sidecar
    })?;
    let (name, container) = (pod::name(pod), &unfinished.name);
    if let Some(cause) = not_running(subject, pod, unfinished) {
        return Some(cause);
    }
    Some(Cause {
        code: Code::InitContainer,
        message: format!("its init container {container:?} has not ended yet"),
        fix: format!(
            "see what it does: {}",
            subject.kubectl(&format!("logs {name} -c {container}"))
        ),
    })
}

fn containers(subject: &Subject<'_>, pod: &Pod) -> Option<Cause> {
    let not_ready: Vec<&ContainerStatus> = pod::container_statuses(pod)
        .filter(|status| !status.ready)
        .collect();
    if let Some(cause) = not_ready
        .iter()
        .find_map(|status| not_running(subject, pod, status))
    {
        return Some(cause);
    }
    not_ready.iter().find_map(|status| {
        let containers = &pod.spec.as_ref()?.containers;
        let container = containers.iter().find(|c| c.name == status.name)?;
        let (kind, probe) = if status.started == Some(false) && container.startup_probe.is_some() {
            ("startup", container.startup_probe.as_ref()?)
        } else {
            ("readiness", container.readiness_probe.as_ref()?)
        };
        Some(probe_failing(subject, pod, container, kind, probe))
    })
}

/// Why a container does not run; none if it runs.
fn not_running(subject: &Subject<'_>, pod: &Pod, status: &ContainerStatus) -> Option<Cause> {
    let (name, container) = (pod::name(pod), &status.name);
    let state = status.state.as_ref()?;
    let previous = status
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let waiting = state.waiting.as_ref();
    let reason = waiting.and_then(|w| w.reason.as_deref()).unwrap_or_default();
    let message = waiting.and_then(|w| w.message.as_deref()).unwrap_or_default();
    if IMAGE_REASONS.contains(&reason) {
        let image = pod
            .spec
            .as_ref()
            .and_then(|spec| {
                spec.containers
                    .iter()
                    .chain(spec.init_containers.iter().flatten())
                    .find(|c| &c.name == container)
            })
            .and_then(|c| c.image.as_deref())
            .unwrap_or(&status.image);
        return Some(Cause {
            code: Code::ImagePull,
            message: with(
                format!("container {container:?} has no image {image}: {reason}"),
                message,
            ),
            fix: format!(
                "correct the image's name or its pull secret, or load it: coracle image load FILE ({image})"
            ),
        });
    }
    let ended = state
        .terminated
        .as_ref()
        .or(previous.filter(|_| waiting.is_some()));
    if let Some(ended) = ended {
        let reason = ended.reason.as_deref().unwrap_or("Error");
        let text = format!(
            "container {container:?} ended with exit code {} ({reason}), {} so far",
            ended.exit_code,
            count(
                usize::try_from(status.restart_count).unwrap_or_default(),
                "restart"
            )
        );
        let fix = match reason {
            "OOMKilled" => "raise the container's memory limit, or let it use less".to_owned(),
            _ => {
                let previous = if state.terminated.is_some() {
                    ""
                } else {
                    " --previous"
                };
                let command = format!("logs {name} -c {container}{previous}");
                format!("read what it said: {}", subject.kubectl(&command))
            }
        };
        return Some(Cause {
            code: Code::CrashLoop,
            message: with(text, ended.message.as_deref().unwrap_or_default()),
            fix,
        });
    }
    waiting?;
    let event = last_event(subject, pod, &["Failed", "FailedMount", "FailedCreatePodSandBox"]);
    let detail = if message.is_empty() {
        event.unwrap_or_default()
    } else {
        message
    };
    // Without a complaint, these are the way of every Pod.
    let starts = event.is_none() && message.is_empty() && STARTING_REASONS.contains(&reason);
    Some(Cause {
        code: if starts {
            Code::PodsStarting
        } else {
            Code::ContainerNotCreated
        },
        message: with(format!("container {container:?} waits: {reason}"), detail),
        fix: format!(
            "see the Pod's events: {}",
            subject.kubectl(&format!("describe pod {name}"))
        ),
    })
}

fn probe_failing(
    subject: &Subject<'_>,
    pod: &Pod,
    container: &Container,
    kind: &str,
    probe: &Probe,
) -> Cause {
    let name = pod::name(pod);
    let what = describe_probe(probe);
    let said = last_event(subject, pod, &["Unhealthy"]);
    let message = match said {
        Some(said) => format!("container {:?}: {}", container.name, said.trim()),
        None => format!(
            "the {kind} probe of container {:?} ({what}) has not succeeded yet",
            container.name
        ),
    };
    let sockets = subject
        .evidence
        .sockets
        .get(name)
        .and_then(|sockets| sockets.as_ref().ok());
    let port = probe_port(probe, container);
    let listening = sockets
        .zip(port)
        .map(|(sockets, port)| (port, listening_tcp(sockets)));
    match listening {
        Some((port, others)) if !others.contains(&port) => {
            let here = if others.is_empty() {
                "nothing listens in the Pod".to_owned()
            } else {
                format!("port {} listens in the Pod", some(&others))
            };
            let fix = match others.as_slice() {
                [one] => format!(
                    "let the program listen on port {port}, or set the port of the {kind} probe and the containerPort to {one}"
                ),
                _ => format!("let the program listen on {port}, or correct the {kind} probe ({what})"),
            };
            Cause {
                code: Code::ProbeFailing,
                message: format!("{message}; {here}"),
                fix,
            }
        }
        _ => Cause {
            code: Code::ProbeFailing,
            message,
            fix: format!(
                "see why {what} fails: {}",
                subject.kubectl(&format!("logs {name} -c {}", container.name))
            ),
        },
    }
}

/// TCP ports that listen on more than the loopback address.
fn listening_tcp(sockets: &[Socket]) -> Vec<u16> {
    let mut ports: Vec<u16> = sockets
        .iter()
        .filter(|s| s.protocol == Protocol::Tcp && !s.address.is_loopback())
        .map(|s| s.port)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn probe_port(probe: &Probe, container: &Container) -> Option<u16> {
    let port = match (&probe.http_get, &probe.tcp_socket, &probe.grpc) {
        (Some(http), ..) => http.port.clone(),
        (_, Some(tcp), _) => tcp.port.clone(),
        (.., Some(grpc)) => IntOrString::Int(grpc.port),
        _ => return None,
    };
    let number = match port {
        IntOrString::Int(number) => number,
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            ports
                .into_iter()
                .find(|p| p.name.as_deref() == Some(&name))?
                .container_port
        }
    };
    u16::try_from(number).ok()
}

fn describe_probe(probe: &Probe) -> String {
    let port = |port: &IntOrString| match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    if let Some(http) = &probe.http_get {
        format!("GET :{}{}", port(&http.port), http.path.as_deref().unwrap_or("/"))
    } else if let Some(tcp) = &probe.tcp_socket {
        format!("connect to port {}", port(&tcp.port))
    } else if let Some(grpc) = &probe.grpc {
        format!("gRPC health check of port {}", grpc.port)
    } else if let Some(exec) = &probe.exec {
        exec.command.as_deref().unwrap_or_default().join(" ")
    } else {
        "no check".to_owned()
    }
}

fn open_gate(pod: &Pod) -> Option<&str> {
    let gates = pod.spec.as_ref()?.readiness_gates.as_ref()?;
    gates
        .iter()
        .map(|gate| gate.condition_type.as_str())
        .find(|gate| pod::condition(pod, gate).is_none_or(|condition| condition.status != "True"))
}

/// The message of the Pod's last Event for one of these reasons.
fn last_event<'a>(subject: &Subject<'a>, pod: &Pod, reasons: &[&str]) -> Option<&'a str> {
    let events = subject.evidence.events.iter().filter(|event| {
        event.involved_object.uid == pod.metadata.uid
            && event
                .reason
                .as_deref()
                .is_some_and(|reason| reasons.contains(&reason))
    });
    events
        .max_by_key(|event| event.last_timestamp.clone())?
        .message
        .as_deref()
}

fn with(text: String, detail: &str) -> String {
    match detail.trim() {
        "" => text,
        detail => format!("{text}: {detail}"),
    }
}
