//! Runs a [`Machine`]: the scheduler. Changes go in as they come; after each burst the machine decides, and its
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
fn instant(time: Timestamp) -> Instant {
    let wait = time.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(wait).unwrap_or_default()
}
