//! Whatever happens to a pod: planning twice plans nothing new, and a deleted pod goes in the end.

use super::story::{pod, settings, start};
use crate::container::State;
use crate::{Action, ExitedContainer, Observation, PodWorker, StartFailure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn any_pod() -> impl Strategy<Value = Value> {
    let policy = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
    (policy, 0..3usize, 1..4usize, any::<[bool; 6]>()).prop_map(|(policy, init, main, flags)| {
        let probe = json!({"httpGet": {"port": 80}, "periodSeconds": 1});
        let init: Vec<Value> = (0..init)
            .map(|i| {
                let mut container = json!({"name": format!("i{i}"), "image": "img"});
                if flags[0] && i == 0 {
                    container["restartPolicy"] = json!("Always");
                }
                container
            })
            .collect();
        let main: Vec<Value> = (0..main)
            .map(|i| {
                let mut container = json!({"name": format!("c{i}"), "image": "img", "lifecycle": {}});
                let keys = ["readinessProbe", "livenessProbe", "startupProbe"];
                for (flag, key) in flags[1..4].iter().zip(keys) {
                    if *flag {
                        container[key] = probe.clone();
                    }
                }
                for (flag, key) in flags[4..].iter().zip(["postStart", "preStop"]) {
                    if *flag {
                        container["lifecycle"][key] = json!({"exec": {"command": ["x"]}});
                    }
                }
                container
            })
            .collect();
        json!({"spec": {"restartPolicy": policy, "initContainers": init, "containers": main,
                         "terminationGracePeriodSeconds": 7}})
    })
}

/// What the world answers to an action; `luck` decides how it goes.
fn answer(action: &Action, luck: u8, now: Timestamp, serial: &mut u32) -> Option<Observation> {
    let good = !luck.is_multiple_of(4);
    let result = if good { Ok(()) } else { Err("no".to_owned()) };
    *serial += 1;
    Some(match action.clone() {
        Action::MountVolumes if good => Observation::VolumesMounted,
        Action::MountVolumes => Observation::VolumesFailed { message: "no".into() },
        Action::CreateSandbox if good => Observation::SandboxReady {
            ips: vec!["10.244.0.7".parse().expect("ip")],
        },
        Action::CreateSandbox => Observation::SandboxFailed { message: "no".into() },
        Action::EnsureImage { container } if good => Observation::ImageReady {
            container,
            id: "sha256:img".into(),
            message: "present".into(),
        },
        Action::EnsureImage { container } => Observation::ImageFailed {
            container,
            reason: "ErrImagePull".into(),
            message: "no".into(),
            event: "no".into(),
        },
        Action::StartContainer { container, .. } if good => Observation::Started {
            container,
            id: format!("id{serial}"),
            image: "img".into(),
            image_id: "sha256:img".into(),
            at: now,
        },
        Action::StartContainer { container, .. } => Observation::StartFailed {
            container,
            failure: match luck / 4 % 3 {
                0 => StartFailure::Config,
                1 => StartFailure::Create,
                _ => StartFailure::Run,
            },
            message: "no".into(),
        },
        Action::RunPostStart { container, id } => Observation::PostStarted {
            container,
            id,
            result,
        },
        Action::Probe {
            container, id, kind, ..
        } => Observation::Probed {
            container,
            id,
            kind,
            result,
        },
        Action::RunPreStop { container, id, .. } => Observation::PreStopped {
            container,
            id,
            result,
        },
        Action::AwaitDrain { .. } if good => Observation::Drained,
        Action::Signal { container, id, .. } if good => Observation::Exited(exit(container, id, 143, now)),
        Action::Kill { container, id } => Observation::Exited(exit(container, id, 137, now)),
        Action::TearDown if good => Observation::TornDown,
        Action::TearDown => Observation::TearDownFailed { message: "no".into() },
        _ => return None,
    })
}

fn exit(container: String, id: String, exit_code: i32, now: Timestamp) -> ExitedContainer {
    ExitedContainer {
        container,
        id,
        attempt: 0,
        exit_code,
        reason: "Error".into(),
        message: String::new(),
        started_at: now,
        finished_at: now,
        image_id: String::new(),
    }
}

fn step(worker: &mut PodWorker, luck: u8, now: Timestamp, serial: &mut u32) -> Vec<Action> {
    let plan = worker.plan(now);
    let again = worker.plan(now);
    assert_eq!(again.actions, vec![], "planned twice");
    assert_eq!(again.wake, plan.wake);
    worker.status(now);
    assert_eq!(worker.status(now), None, "reported twice");
    for action in &plan.actions {
        if let Some(observation) = answer(action, luck, now, serial) {
            worker.observe(observation, now);
        }
    }
    plan.actions
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_deleted_pod_goes(spec in any_pod(), luck in proptest::collection::vec(any::<u8>(), 1..60), delete_at in 0..60usize) {
        let mut now = start();
        let mut serial = 0;
        let mut worker = PodWorker::new(Arc::new(pod(&spec)), None, settings(), now);
        for (turn, luck) in luck.iter().enumerate() {
            if turn == delete_at {
                break;
            }
            step(&mut worker, *luck, now, &mut serial);
            if luck % 7 == 0 {
                let running = worker.containers().iter().find_map(|c| match &c.state {
                    State::Running(r) => Some((c.name.clone(), r.id.clone())),
                    _ => None,
                });
                if let Some((name, id)) = running {
                    worker.observe(Observation::Exited(exit(name, id, i32::from(luck % 2), now)), now);
                }
            }
            now += SignedDuration::from_millis(i64::from(*luck) * 20);
        }
        let mut object = (**worker.pod()).clone();
        object.metadata.deletion_timestamp = Some(Time(now));
        object.metadata.deletion_grace_period_seconds = Some(7);
        worker.update(Arc::new(object), now);
        let mut deleted = 0;
        let mut signalled = false;
        for turn in 0..800usize {
            // In the end all goes well.
            let luck = if turn < 200 { luck[turn % luck.len()] } else { 1 };
            let actions = step(&mut worker, luck, now, &mut serial);
            for action in actions {
                match action {
                    Action::StartContainer { .. } => prop_assert!(false, "a deleted pod started something"),
                    Action::DeletePod => deleted += 1,
                    Action::Signal { .. } => signalled = true,
                    Action::AwaitDrain { .. } => prop_assert!(!signalled, "signalled before it was drained"),
                    _ => {}
                }
            }
            now += SignedDuration::from_millis(500);
        }
        prop_assert_eq!(deleted, 1);
        prop_assert!(worker.is_terminal());
        worker.removed(now);
        prop_assert!(worker.is_gone());
    }
}
