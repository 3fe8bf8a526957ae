//! Records Events, the lines below `kubectl describe`: repeats raise the count of one Event, many similar ones are
//! combined, and an object that floods is cut off. Upstream: `k8s.io/client-go/tools/record` (event correlator).

mod correlator;

use crate::client::Client;
use coracle_meta::GroupVersionResource;
use coracle_reconcile::{Action, EventType, Key, PatchType};
use correlator::{Correlator, Write};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Events that wait to be written; when they are more, the newest are dropped, for an Event may be lost and its
/// origin must never wait for it.
const QUEUE: usize = 1024;

#[derive(Debug, Clone)]
struct Record {
    component: Arc<str>,
    host: Arc<str>,
    regarding: Value,
    event_type: EventType,
    reason: String,
    message: String,
}

/// Hands Events to the task that writes them. Cheap to clone; never blocks.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Record>,
    component: Arc<str>,
    host: Arc<str>,
}

/// A recorder and the future that writes what it records, to be spawned. It ends when all recorders are dropped.
pub fn recorder(client: Client) -> (Recorder, impl Future<Output = ()> + Send + 'static) {
    let (queue, records) = mpsc::channel(QUEUE);
    let recorder = Recorder {
        queue,
        component: Arc::from(""),
        host: Arc::from(""),
    };
    (recorder, write(client, records))
}

impl Recorder {
    /// The same recorder in the name of a component, such as `kubelet`, and of its host, if it has one.
    pub fn of(&self, component: &str, host: &str) -> Self {
        Self {
            queue: self.queue.clone(),
            component: Arc::from(component),
            host: Arc::from(host),
        }
    }

    /// Records an [`Action::Event`]; other actions are none of its business.
    pub fn record(&self, action: &Action) {
        if let Action::Event {
            regarding,
            event_type,
            reason,
            message,
        } = action
        {
            self.event(regarding.clone(), *event_type, reason, message);
        }
    }

    /// Records an Event about an object: `apiVersion`, `kind`, `namespace`, `name`, `uid`, perhaps `fieldPath`.
    pub fn event(&self, regarding: Value, event_type: EventType, reason: &str, message: &str) {
        let record = Record {
            component: self.component.clone(),
            host: self.host.clone(),
            regarding,
            event_type,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        if self.queue.try_send(record).is_err() {
            tracing::warn!(reason, message, "event dropped, too many are waiting");
        }
    }
}

async fn write(client: Client, mut records: mpsc::Receiver<Record>) {
    let events = GroupVersionResource::new("", "v1", "events");
    let mut correlator = Correlator::default();
    while let Some(record) = records.recv().await {
        let Some(write) = correlator.correlate(&record, Timestamp::now()) else {
            continue;
        };
        let result = match &write {
            Write::Create(object) => {
                let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
                client.create(&events, namespace, object).await
            }
            Write::Patch { key, patch, object } => {
                let patched = client.patch(&events, key, "", PatchType::Strategic, patch).await;
                match patched {
                    // Its time to live is over: start it anew with the count it had.
                    Err(error) if error.is_not_found() => {
                        client.create(&events, &key.namespace, object).await
                    }
                    other => other,
                }
            }
        };
        if let Err(error) = result {
            let key = write.key();
            tracing::debug!(%key, error = %error.describe(), "event not recorded");
        }
    }
}

impl Write {
    fn key(&self) -> Key {
        use coracle_meta::object::ObjectExt;
        match self {
            Self::Create(object) => Key::new(object.namespace(), object.name()),
            Self::Patch { key, .. } => key.clone(),
        }
    }
}
