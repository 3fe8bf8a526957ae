//! Executes a plan: step by step, the actions of a step at the same time.

use crate::client::Client;
use crate::events::Recorder;
use coracle_meta::Status;
use coracle_reconcile::{Action, Key, Outcome, Plan};
use futures::{FutureExt, StreamExt, stream};
use serde_json::Value;
use std::sync::Arc;

/// Requests of one plan under way at a time.
const MOST_CONCURRENT: usize = 64;

/// A plan and what became of it.
pub(super) struct Finished {
    /// The controller's index.
    pub controller: usize,
    pub key: Key,
    pub plan: Arc<Plan>,
    pub outcome: Outcome,
}

pub(super) async fn plan(
    controller: usize,
    key: Key,
    plan: Arc<Plan>,
    client: Client,
    recorder: Recorder,
) -> Finished {
    let mut outcome = Outcome::default();
    for step in &plan.steps {
        let requests: Vec<_> = step
            .iter()
            .map(|action| execute(action, &client, &recorder).boxed())
            .collect();
        let results: Vec<_> = stream::iter(requests).buffered(MOST_CONCURRENT).collect().await;
        outcome.results.extend(results);
        if outcome.error().is_some() {
            break;
        }
    }
    Finished {
        controller,
        key,
        plan,
        outcome,
    }
}

async fn execute(action: &Action, client: &Client, recorder: &Recorder) -> Result<Value, Status> {
    recorder.record(action);
    let result = client.execute(action).await;
    match (action, result) {
        // Who wanted it gone has it gone.
        (Action::Delete { .. }, Err(error)) if error.is_not_found() => Ok(Value::Null),
        (_, result) => result.map_err(crate::error::ClientError::into_status),
    }
}
