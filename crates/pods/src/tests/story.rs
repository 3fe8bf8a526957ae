//! The harness of the golden stories. Steps are lines: `at SECONDS`, what happens, `plan …`, `status …`.

use crate::container::State;
use crate::prober::ProbeKind;
use crate::{
    Action, Adopted, ExitedContainer, Observation, PodWorker, RunningContainer, Settings, StartFailure,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
pub struct Story {
    /// `spec` and optionally `metadata` and `status`.
    pod: Value,
    /// Containers that the runtime still has: `app c1 0 running`.
    #[serde(default)]
    adopt: Option<Vec<String>>,
    /// One a line.
    story: String,
}

pub fn pod(value: &Value) -> Pod {
    let mut value = value.clone();
    let meta = json!({"name": "web", "namespace": "shop", "uid": "u1", "generation": 1});
    let mut merged = meta.as_object().expect("object").clone();
    if let Some(given) = value.get("metadata").and_then(Value::as_object) {
        merged.extend(given.clone());
    }
    value["metadata"] = Value::Object(merged);
    serde_json::from_value(value).expect("a pod")
}

pub fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

pub fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        host_ips: vec!["192.0.2.10".parse().expect("ip")],
        drain: SignedDuration::from_secs(5),
    })
}

impl Story {
    pub fn parse(text: &str) -> Self {
        serde_saphyr::from_str(text).expect("a story")
    }

    pub fn play(&self) {
        let mut now = start();
        let adopted = self.adopt.as_ref().map(|lines| adopted(lines, now));
        let mut worker = PodWorker::new(Arc::new(pod(&self.pod)), adopted, settings(), now);
        for (number, line) in self.story.lines().enumerate() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let context = || format!("line {}: {line}", number + 1);
            match word {
                "" => {}
                "at" => {
                    let seconds: f64 = rest.parse().expect("seconds");
                    now = start() + SignedDuration::from_secs_f64(seconds);
                }
                "plan" => {
                    let plan = worker.plan(now);
                    let mut actions: Vec<String> = plan.actions.iter().map(action).collect();
                    if let Some(wake) = plan.wake {
                        actions.push(format!("wake {}", wake.duration_since(start()).as_secs_f64()));
                    }
                    assert_eq!(actions.join(" | "), rest, "{}", context());
                    let again = worker.plan(now);
                    assert_eq!(
                        (again.actions, again.wake),
                        (vec![], plan.wake),
                        "twice, {}",
                        context()
                    );
                }
                "status" => {
                    worker.status(now);
                    assert_eq!(summary(worker.reported_status()), rest, "{}", context());
                    assert_eq!(worker.status(now), None, "only on change");
                }
                "condition" => {
                    worker.status(now);
                    let (kind, expected) = rest.split_once(' ').expect("kind and text");
                    assert_eq!(
                        condition(worker.reported_status(), kind),
                        expected,
                        "{}",
                        context()
                    );
                }
                "container" => {
                    worker.status(now);
                    let (name, expected) = rest.split_once(' ').expect("name and text");
                    assert_eq!(
                        container(worker.reported_status(), name),
                        expected,
                        "{}",
                        context()
                    );
                }
                "deleted" => {
                    let grace = rest.parse().expect("grace");
                    let mut pod = (**worker.pod()).clone();
                    pod.metadata.deletion_timestamp = Some(Time(now));
                    pod.metadata.deletion_grace_period_seconds = Some(grace);
                    worker.update(Arc::new(pod), now);
                }
                "image" if rest.contains('=') => {
                    let (name, image) = rest.split_once('=').expect("name=image");
                    let mut pod = (**worker.pod()).clone();
                    for c in &mut pod.spec.as_mut().expect("spec").containers {
                        if c.name == name {
                            c.image = Some(image.into());
                        }
                    }
                    worker.update(Arc::new(pod), now);
                }
                "removed" => worker.removed(now),
                "changed" => worker.dependency_changed(now),
                "gone" => assert!(worker.is_gone(), "{}", context()),
                _ => worker.observe(observation(&worker, line, now), now),
            }
        }
    }
}

fn adopted(lines: &[String], now: Timestamp) -> Adopted {
    let mut adopted = Adopted {
        ips: vec!["10.244.0.7".parse().expect("ip")],
        ..Adopted::default()
    };
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let attempt = fields[2].parse().expect("attempt");
        match fields[3] {
            "running" => adopted.running.push(RunningContainer {
                container: fields[0].into(),
                id: fields[1].into(),
                attempt,
                image: "img".into(),
                image_id: "sha256:img".into(),
                started_at: now - SignedDuration::from_secs(3600),
            }),
            code => adopted
                .exited
                .push(ended(fields[0], fields[1], attempt, code, "", now)),
        }
    }
    adopted
}

fn ended(
    container: &str,
    id: &str,
    attempt: i32,
    code: &str,
    reason: &str,
    now: Timestamp,
) -> ExitedContainer {
    let exit_code = code.parse().expect("exit code");
    let default = if exit_code == 0 { "Completed" } else { "Error" };
    ExitedContainer {
        container: container.into(),
        id: id.into(),
        attempt,
        exit_code,
        reason: if reason.is_empty() {
            default.into()
        } else {
            reason.into()
        },
        message: String::new(),
        started_at: now,
        finished_at: now,
        image_id: "sha256:img".into(),
    }
}

fn observation(worker: &PodWorker, line: &str, now: Timestamp) -> Observation {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let name = || fields.get(1).copied().unwrap_or_default().to_owned();
    let record = || {
        worker
            .containers()
            .iter()
            .find(|c| c.name == name())
            .expect("a container")
    };
    let id = || match &record().state {
        State::Running(running) => running.id.clone(),
        other => panic!("{line}: {other:?}"),
    };
    let result = |at: usize| match fields.get(at).copied() {
        Some("ok") => Ok(()),
        _ => Err(fields[at..].join(" ")),
    };
    match fields[0] {
        "mounted" => Observation::VolumesMounted,
        "unmountable" => Observation::VolumesFailed {
            message: fields[1..].join(" "),
        },
        "sandbox" => Observation::SandboxReady {
            ips: vec![fields[1].parse().expect("ip")],
        },
        "no-sandbox" => Observation::SandboxFailed {
            message: fields[1..].join(" "),
        },
        "lost" => Observation::SandboxLost,
        "image" => Observation::ImageReady {
            container: name(),
            id: "sha256:img".into(),
            message: "present".into(),
        },
        "no-image" => Observation::ImageFailed {
            container: name(),
            reason: fields[2].into(),
            message: fields[3..].join(" "),
            event: format!("Failed to pull image \"img\": {}", fields[3..].join(" ")),
        },
        "started" => Observation::Started {
            container: name(),
            id: fields[2].into(),
            image: fields.get(3).copied().unwrap_or("img").into(),
            image_id: "sha256:img".into(),
            at: now,
        },
        "not-started" => Observation::StartFailed {
            container: name(),
            failure: match fields[2] {
                "config" => StartFailure::Config,
                "create" => StartFailure::Create,
                _ => StartFailure::Run,
            },
            message: fields[3..].join(" "),
        },
        "exited" => {
            let reason = fields.get(3).copied().unwrap_or_default();
            Observation::Exited(ended(
                fields[1],
                &id(),
                record().restart_count,
                fields[2],
                reason,
                now,
            ))
        }
        "late-exit" => Observation::Exited(ended(fields[1], fields[2], 0, fields[3], "", now)),
        "post-start" => Observation::PostStarted {
            container: name(),
            id: id(),
            result: result(2),
        },
        "pre-stop" => Observation::PreStopped {
            container: name(),
            id: id(),
            result: result(2),
        },
        "probe" => Observation::Probed {
            container: name(),
            id: id(),
            kind: match fields[2] {
                "startup" => ProbeKind::Startup,
                "liveness" => ProbeKind::Liveness,
                _ => ProbeKind::Readiness,
            },
            result: result(3),
        },
        "drained" => Observation::Drained,
        "torn-down" => Observation::TornDown,
        "not-torn-down" => Observation::TearDownFailed {
            message: fields[1..].join(" "),
        },
        other => panic!("what is {other}?"),
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::MountVolumes => "mount".into(),
        Action::CreateSandbox => "sandbox".into(),
        Action::EnsureImage { container } => format!("image {container}"),
        Action::StartContainer {
            container, attempt, ..
        } => format!("start {container} {attempt}"),
        Action::RunPostStart { container, .. } => format!("post-start {container}"),
        Action::Probe { container, kind, .. } => format!("{} {container}", kind.as_str().to_lowercase()),
        Action::RunPreStop { container, .. } => format!("pre-stop {container}"),
        Action::AwaitDrain { .. } => "drain".into(),
        Action::Signal {
            container, signal, ..
        } => {
            format!(
                "signal {container}{}",
                signal.as_ref().map(|s| format!(" {s}")).unwrap_or_default()
            )
        }
        Action::Kill { container, .. } => format!("kill {container}"),
        Action::RemoveContainer { id } => format!("remove {id}"),
        Action::TearDown => "tear-down".into(),
        Action::DeletePod => "delete".into(),
        Action::Record(event) => {
            let mark = if event.warning { "!" } else { "" };
            format!("{mark}{}: {}", event.reason, event.message)
        }
    }
}

/// `Running ready app=running:ready/0`.
fn summary(status: &PodStatus) -> String {
    let mut words = vec![status.phase.clone().unwrap_or_default()];
    words.extend(status.reason.clone());
    words.push(match condition(status, "Ready").starts_with("True") {
        true => "ready".into(),
        false => "unready".into(),
    });
    let lists = [&status.init_container_statuses, &status.container_statuses];
    words.extend(lists.into_iter().flatten().flatten().map(short));
    words.join(" ")
}

fn short(status: &ContainerStatus) -> String {
    let state = status.state.as_ref().expect("a state");
    let text = if let Some(waiting) = &state.waiting {
        format!("waiting:{}", waiting.reason.as_deref().unwrap_or_default())
    } else if state.running.is_some() {
        format!("running:{}", if status.ready { "ready" } else { "unready" })
    } else {
        let t = state.terminated.as_ref().expect("one of three");
        format!(
            "terminated:{}:{}",
            t.exit_code,
            t.reason.as_deref().unwrap_or_default()
        )
    };
    format!("{}={text}/{}", status.name, status.restart_count)
}

/// `False ContainersNotReady containers with unready status: [app]`.
fn condition(status: &PodStatus, kind: &str) -> String {
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == kind)
        .expect("a condition");
    let words = [
        Some(condition.status.clone()),
        condition.reason.clone(),
        condition.message.clone(),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    words.join(" ")
}

/// The message of the waiting state and the last state.
fn container(status: &PodStatus, name: &str) -> String {
    let status = status
        .container_statuses
        .iter()
        .flatten()
        .find(|s| s.name == name)
        .expect("a container");
    let waiting = status.state.as_ref().and_then(|s| s.waiting.as_ref());
    let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let mut words = Vec::new();
    words.extend(waiting.and_then(|w| w.message.clone()));
    words.extend(last.map(|t| format!("last:{}:{}", t.exit_code, t.reason.as_deref().unwrap_or_default())));
    words.join(" ")
}
