//! Runs a [`Machine`], such as the scheduler. Changes go in as they come; after each burst the machine decides, and its
//! writes run concurrently.

use crate::client::Client;
use crate::driver::{self, Changes};
use crate::error::ClientError;
use crate::events::Recorder;
use crate::informer::Event;
use coracle_meta::{GroupVersionResource, Status};
use coracle_reconcile::{Action, Machine, Observation, Step};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::HashSet;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Changes taken in before the next decision.
const MOST_CHANGES_A_ROUND: usize = 4096;

/// Runs a machine until the future is dropped. It decides nothing before it has seen everything that it watches.
pub async fn run(mut machine: impl Machine, watcher: Client, writer: Client, recorder: Recorder) {
    let recorder = recorder.of(machine.name(), "");
    let mut informers = JoinSet::new();
    let mut unsynced: HashSet<GroupVersionResource> = machine.resources().into_iter().collect();
    let mut changes: Changes = machine
        .resources()
        .into_iter()
        .map(|resource| driver::follow(&watcher, resource, &mut informers))
        .collect();
    let mut writes = JoinSet::new();
    loop {
        if unsynced.is_empty() {
            for step in machine.step(Timestamp::now()) {
                recorder.record(&step.action);
                writes.spawn(write(writer.clone(), step));
            }
        }
        let wake_at = machine.wake_at().map(instant);
        // Cancel-safe: a stream, a join set and a clock lose nothing when another branch wins.
        tokio::select! {
            change = changes.next() => {
                let Some((resource, event)) = change else { return };
                take_in(&mut machine, &mut unsynced, &resource, event);
                for _ in 0..MOST_CHANGES_A_ROUND {
                    let Some(Some((resource, event))) = changes.next().now_or_never() else { break };
                    take_in(&mut machine, &mut unsynced, &resource, event);
                }
            }
            Some(written) = writes.join_next(), if !writes.is_empty() => {
                // Tasks are never aborted, and a write does not panic.
                if let Ok((step, result)) = written {
                    finish(&mut machine, &recorder, &step, &result);
                }
            }
            () = driver::at(wake_at) => {}
        }
    }
}

fn take_in(
    machine: &mut impl Machine,
    unsynced: &mut HashSet<GroupVersionResource>,
    resource: &GroupVersionResource,
    event: Event,
) {
    let now = Timestamp::now();
    let observed = match &event {
        Event::Synced(_) => {
            unsynced.remove(resource);
            return;
        }
        Event::Progress(_) => return,
        Event::Applied { object, .. } => machine.observe(resource, Observation::Applied(object), now),
        Event::Deleted { key, .. } => machine.observe(resource, Observation::Deleted(key), now),
    };
    if let Err(error) = observed {
        tracing::warn!(%resource.resource, %error, "object does not decode and is not seen");
    }
}

async fn write(client: Client, step: Step) -> (Step, Result<Value, Status>) {
    let result = client.execute(&step.action).await;
    (step, result.map_err(ClientError::into_status))
}

fn finish(machine: &mut impl Machine, recorder: &Recorder, step: &Step, result: &Result<Value, Status>) {
    match result {
        Ok(_) => step
            .events
            .iter()
            .for_each(|event: &Action| recorder.record(event)),
        Err(error) => tracing::warn!(machine = machine.name(), %error, "write failed"),
    }
    machine.finished(step.ticket, result, Timestamp::now());
}

/// The moment on the clock of timers.
pub(crate) fn instant(time: Timestamp) -> Instant {
    let wait = time.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(wait).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::recorder;
    use crate::fake_server::FakeServer;
    use coracle_meta::object::ObjectExt;
    use coracle_reconcile::{EventType, Key};
    use serde_json::json;

    /// Binds each pod that it sees, once; tells of those that were refused.
    #[derive(Default)]
    struct Binder {
        waiting: Vec<Key>,
        refused: usize,
    }

    impl Machine for Binder {
        fn name(&self) -> &'static str {
            "binder"
        }
        fn resources(&self) -> Vec<GroupVersionResource> {
            vec![GroupVersionResource::new("", "v1", "pods")]
        }
        fn observe(
            &mut self,
            _resource: &GroupVersionResource,
            observation: Observation<'_>,
            _now: Timestamp,
        ) -> Result<(), serde_json::Error> {
            if let Observation::Applied(bytes) = observation {
                let pod: Value = serde_json::from_slice(bytes)?;
                self.waiting.push(Key::new(pod.namespace(), pod.name()));
            }
            Ok(())
        }
        fn step(&mut self, _now: Timestamp) -> Vec<Step> {
            let about = |key: &Key| json!({"kind": "Pod", "namespace": key.namespace, "name": key.name});
            let event = |key: &Key, reason: &str| Action::Event {
                regarding: about(key),
                event_type: EventType::Normal,
                reason: reason.to_owned(),
                message: reason.to_owned(),
            };
            let (refused, pods) = (std::mem::take(&mut self.refused), self.resources().remove(0));
            let keys = std::mem::take(&mut self.waiting).into_iter().enumerate();
            keys.map(|(index, key)| Step {
                ticket: index as u64,
                action: Action::CreateSubresource {
                    resource: pods.clone(),
                    key: key.clone(),
                    subresource: "binding",
                    object: json!({"kind": "Binding"}),
                },
                events: vec![event(&key, "Bound")],
            })
            .chain((0..refused).map(|_| Step {
                ticket: 0,
                action: event(&Key::new("ns", "someone"), "Refused"),
                events: Vec::new(),
            }))
            .collect()
        }
        fn finished(&mut self, _ticket: u64, result: &Result<Value, Status>, _now: Timestamp) {
            self.refused += usize::from(result.is_err());
        }
        fn wake_at(&self) -> Option<Timestamp> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn steps_are_written_and_events_follow_successes() {
        let server = FakeServer::default();
        server.put("pods", "ns", "a", json!({}));
        let client = server.client();
        let (events, writer) = recorder(client.clone());
        let test = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            server.refuse(&Status::internal("down"), 1);
            server.put("pods", "ns", "b", json!({}));
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! {
            () = run(Binder::default(), client.clone(), client, events) => panic!("it ended"),
            () = writer => panic!("the recorder ended"),
            () = test => {}
        }
        let posts = |path: &str| server.log().iter().filter(|line| line.ends_with(path)).count();
        assert_eq!(posts("/pods/a/binding"), 1);
        assert_eq!(posts("/pods/b/binding"), 1);
        let mut reasons: Vec<_> = server
            .objects("events")
            .iter()
            .map(|e| e["reason"].clone())
            .collect();
        reasons.sort_by_key(ToString::to_string);
        assert_eq!(reasons, ["Bound", "Refused"]);
    }
}
