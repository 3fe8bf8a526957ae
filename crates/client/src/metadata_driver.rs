//! Runs controllers that work on objects of every kind: one set of watches feeds them all, and each writes under its
//! own identity. Upstream: `k8s.io/client-go/metadata`, the workers of `pkg/controller/{garbagecollector,namespace}`.

use crate::client::Client;
use crate::driver::{self, Changes};
use crate::error::ClientError;
use crate::informer::Event;
use crate::machine_driver::instant;
use crate::request::ListOptions;
use coracle_meta::{GroupVersionResource, Status};
use coracle_reconcile::{Metadata, MetadataChange, MetadataMachine, Request};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::HashSet;
use tokio::task::JoinSet;

/// Changes taken in before the next decision.
const MOST_CHANGES_A_ROUND: usize = 4096;

/// A machine and the client under which it acts.
pub type Member = (Box<dyn MetadataMachine>, Client);

/// Runs machines over these resources until the future is dropped. They decide nothing before they have seen
/// everything that there is.
pub async fn run(mut members: Vec<Member>, watcher: Client, resources: Vec<GroupVersionResource>) {
    let mut informers = JoinSet::new();
    let mut unsynced: HashSet<GroupVersionResource> = resources.iter().cloned().collect();
    let mut changes: Changes = resources
        .into_iter()
        .map(|resource| driver::follow(&watcher, resource, &mut informers))
        .collect();
    let mut requests = JoinSet::new();
    loop {
        if unsynced.is_empty() {
            for (index, (machine, client)) in members.iter_mut().enumerate() {
                for (ticket, request) in machine.step(Timestamp::now()) {
                    requests.spawn(execute(client.clone(), index, ticket, request));
                }
            }
        }
        let wake_at = members.iter().filter_map(|(machine, _)| machine.wake_at()).min();
        // Cancel-safe: a stream, a join set and a clock lose nothing when another branch wins.
        tokio::select! {
            change = changes.next() => {
                let Some((resource, event)) = change else { return };
                take_in(&mut members, &mut unsynced, &resource, event);
                for _ in 0..MOST_CHANGES_A_ROUND {
                    let Some(Some((resource, event))) = changes.next().now_or_never() else { break };
                    take_in(&mut members, &mut unsynced, &resource, event);
                }
            }
            Some(executed) = requests.join_next(), if !requests.is_empty() => {
                // Tasks are never aborted, and a request does not panic.
                if let Ok((index, ticket, answer)) = executed {
                    let machine = &mut members[index].0;
                    if let Err(status) = &answer {
                        tracing::debug!(controller = machine.name(), %status, "request failed");
                    }
                    machine.answered(ticket, &answer, Timestamp::now());
                }
            }
            () = driver::at(wake_at.map(instant)) => {}
        }
    }
}

fn take_in(
    members: &mut [Member],
    unsynced: &mut HashSet<GroupVersionResource>,
    resource: &GroupVersionResource,
    event: Event,
) {
    let now = Timestamp::now();
    match event {
        Event::Synced(_) => {
            unsynced.remove(resource);
        }
        Event::Progress(_) => {}
        Event::Applied { object, .. } => match Metadata::parse(&object) {
            Ok(metadata) => {
                for (machine, _) in members {
                    machine.observe(resource, MetadataChange::Applied(&metadata), now);
                }
            }
            Err(error) => {
                tracing::warn!(%resource.resource, %error, "metadata does not decode and is not seen");
            }
        },
        Event::Deleted { key, .. } => {
            for (machine, _) in members {
                machine.observe(resource, MetadataChange::Deleted(&key), now);
            }
        }
    }
}

async fn execute(
    client: Client,
    index: usize,
    ticket: u64,
    request: Request,
) -> (usize, u64, Result<Value, Status>) {
    let answer = match &request {
        Request::Write(action) => client.execute(action).await,
        Request::Get { resource, key } => client.get(resource, key).await,
        Request::List { resource, namespace } => list(&client, resource, namespace).await,
    };
    (index, ticket, answer.map_err(ClientError::into_status))
}

async fn list(
    client: &Client,
    resource: &GroupVersionResource,
    namespace: &str,
) -> Result<Value, ClientError> {
    let bytes = client.list(resource, namespace, &ListOptions::default()).await?;
    serde_json::from_slice(&bytes).map_err(|source| ClientError::Decode {
        request: format!("GET {}", resource.resource),
        source,
    })
}
