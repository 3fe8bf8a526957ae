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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_server::FakeServer;
    use coracle_reconcile::{Action, Key, Precondition};
    use serde_json::json;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// Deletes what belongs to nobody in particular, and notes what it learns.
    struct Sweeper {
        waiting: Vec<(GroupVersionResource, Key)>,
        learned: Arc<Mutex<Vec<String>>>,
    }

    impl Sweeper {
        fn note(&self, what: String) {
            self.learned
                .lock()
                .expect("no test panics with the lock")
                .push(what);
        }
    }

    impl MetadataMachine for Sweeper {
        fn name(&self) -> &'static str {
            "sweeper"
        }
        fn observe(&mut self, resource: &GroupVersionResource, change: MetadataChange<'_>, _now: Timestamp) {
            match change {
                MetadataChange::Applied(metadata) => self.waiting.push((resource.clone(), metadata.key())),
                MetadataChange::Deleted(key) => self.note(format!("{} {key} is gone", resource.resource)),
            }
        }
        fn step(&mut self, _now: Timestamp) -> Vec<(u64, Request)> {
            let request = |(resource, key): (GroupVersionResource, Key)| match key.name.as_str() {
                "look" => Request::Get { resource, key },
                "count" => Request::List {
                    resource,
                    namespace: key.namespace,
                },
                _ => Request::Write(Action::Delete {
                    resource,
                    key,
                    precondition: Precondition::default(),
                    propagation: None,
                    grace_seconds: None,
                }),
            };
            let waiting = std::mem::take(&mut self.waiting);
            waiting.into_iter().map(|object| (7, request(object))).collect()
        }
        fn answered(&mut self, ticket: u64, answer: &Result<Value, Status>, _now: Timestamp) {
            let answer = answer.as_ref().expect("the fake server refuses nothing");
            if let Some(items) = answer["items"].as_array() {
                self.note(format!("{ticket}: {} objects", items.len()));
            } else if answer["metadata"]["name"] == "look" {
                self.note(format!("{ticket}: found look"));
            }
        }
        fn wake_at(&self) -> Option<Timestamp> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_executed_and_answered() {
        let server = FakeServer::default();
        server.put("pods", "ns", "sweep", json!({}));
        server.put("configmaps", "ns", "look", json!({}));
        server.put("configmaps", "ns", "count", json!({}));
        let learned = Arc::new(Mutex::new(Vec::new()));
        let sweeper = Sweeper {
            waiting: Vec::new(),
            learned: learned.clone(),
        };
        let client = server.client();
        let resources = ["pods", "configmaps"]
            .map(|r| GroupVersionResource::new("", "v1", r))
            .to_vec();
        tokio::select! {
            () = run(vec![(Box::new(sweeper), client.clone())], client, resources) => panic!("it ended"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let mut learned = learned.lock().expect("no test panics with the lock").clone();
        learned.sort();
        assert_eq!(
            learned,
            ["7: 2 objects", "7: found look", "pods ns/sweep is gone"]
        );
        assert!(server.objects("pods").is_empty());
    }
}
