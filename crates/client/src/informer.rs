//! Keeps a consumer up to date about a collection: list, then watch; resume where a watch broke off, list again when
//! the server no longer knows that revision. Upstream: `k8s.io/client-go/tools/cache` (Reflector).

use crate::client::Client;
use crate::error::ClientError;
use crate::request::ListOptions;
use crate::watch::{Frame, FrameType};
use bytes::Bytes;
use coracle_meta::GroupVersionResource;
use coracle_reconcile::{Key, Revision};
use rand::Rng;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// The first wait after a failure; doubled up to [`LONGEST_WAIT`] while failures go on.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What an informer tells its consumer. The revision is that up to which everything has been told with this event:
/// while a list is told it stays what it was, for what is still to come may be older than what has been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Everything that existed at this revision has been delivered. Comes once after the start, and again whenever
    /// the informer had to list anew.
    Synced(Revision),
    /// The object exists and looks like this.
    Applied {
        /// Which.
        key: Key,
        /// See [`Event`]; after a list it is not the object's own.
        revision: Revision,
        /// JSON. After a list it is a slice of the whole answer: copy it to keep it. Objects of a list have no
        /// `apiVersion` and `kind`.
        object: Bytes,
    },
    /// The object is gone or no longer matches the selectors.
    Deleted {
        /// Which.
        key: Key,
        /// See [`Event`].
        revision: Revision,
    },
    /// Nothing happened up to this revision that has not been delivered.
    Progress(Revision),
}

/// Which objects of a resource.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// One namespace, or empty for all.
    pub namespace: String,
    /// `app=db`, or empty.
    pub label_selector: String,
    /// `spec.nodeName=a`, or empty.
    pub field_selector: String,
}

/// Runs until the consumer drops its receiver or the future is dropped.
pub async fn run(
    client: Client,
    resource: GroupVersionResource,
    options: Options,
    consumer: mpsc::Sender<Event>,
) {
    let closed = consumer.clone();
    let mut informer = Informer {
        client,
        resource,
        options,
        consumer,
        known: HashMap::new(),
        told: Revision::default(),
        wait: SHORTEST_WAIT,
    };
    // Dropping the informer in the middle of anything loses nothing that the consumer, gone too, could miss.
    tokio::select! {
        () = closed.closed() => {}
        () = informer.follow() => {}
    }
}

/// The consumer is gone.
struct Gone;

impl From<mpsc::error::SendError<Event>> for Gone {
    fn from(_: mpsc::error::SendError<Event>) -> Self {
        Self
    }
}

struct Informer {
    client: Client,
    resource: GroupVersionResource,
    options: Options,
    consumer: mpsc::Sender<Event>,
    /// What the consumer has been told exists: a list says nothing about what has vanished.
    known: HashMap<Key, Revision>,
    /// Up to here the consumer has been told everything.
    told: Revision,
    wait: Duration,
}

#[derive(Deserialize)]
struct WireList<'a> {
    #[serde(borrow)]
    metadata: WireMeta<'a>,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct WireObject<'a> {
    #[serde(borrow)]
    metadata: WireMeta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMeta<'a> {
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
}

impl WireMeta<'_> {
    fn key(&self) -> Key {
        Key::new(self.namespace.as_ref(), self.name.as_ref())
    }
    fn revision(&self) -> Revision {
        Revision::parse(&self.resource_version)
    }
}

impl Informer {
    async fn follow(&mut self) {
        loop {
            let Ok(mut revision) = self.list().await else {
                return;
            };
            loop {
                match self.watch(&mut revision).await {
                    Err(Gone) => return,
                    Ok(None) => {}
                    Ok(Some(error)) if error.is_expired() => break,
                    Ok(Some(error)) => self.pause("watch", &error).await,
                }
            }
        }
    }

    /// Lists until it succeeds and tells the differences.
    async fn list(&mut self) -> Result<Revision, Gone> {
        let options = ListOptions {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            ..ListOptions::default()
        };
        loop {
            let answer = self
                .client
                .list(&self.resource, &self.options.namespace, &options)
                .await;
            let error = match answer {
                Err(error) => error,
                Ok(bytes) => match decode_list(&bytes) {
                    Ok((revision, items)) => return self.deliver(revision, items).await,
                    Err(source) => ClientError::Decode {
                        request: format!("GET {}", self.resource.resource),
                        source,
                    },
                },
            };
            self.pause("list", &error).await;
        }
    }

    async fn deliver(
        &mut self,
        revision: Revision,
        items: Vec<(Key, Revision, Bytes)>,
    ) -> Result<Revision, Gone> {
        let mut before = std::mem::take(&mut self.known);
        for (key, version, object) in items {
            let told = before.remove(&key);
            self.known.insert(key.clone(), version);
            if told != Some(version) {
                let event = Event::Applied {
                    key,
                    revision: self.told,
                    object,
                };
                self.consumer.send(event).await?;
            }
        }
        for key in before.into_keys() {
            let revision = self.told;
            self.consumer.send(Event::Deleted { key, revision }).await?;
        }
        self.told = revision;
        self.consumer.send(Event::Synced(revision)).await?;
        self.wait = SHORTEST_WAIT;
        Ok(revision)
    }

    /// Watches until the server ends it (`None`) or something fails; `revision` moves along.
    async fn watch(&mut self, revision: &mut Revision) -> Result<Option<ClientError>, Gone> {
        let options = ListOptions {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            resource_version: revision.to_string(),
            ..ListOptions::default()
        };
        let mut stream = match self
            .client
            .watch(&self.resource, &self.options.namespace, &options)
            .await
        {
            Ok(stream) => stream,
            Err(error) => return Ok(Some(error)),
        };
        let mut silent = true;
        loop {
            match stream.next().await {
                Ok(Some(frame)) => {
                    silent = false;
                    self.wait = SHORTEST_WAIT;
                    if let Err(source) = self.take(&frame, revision).await? {
                        let request = format!("GET {}", self.resource.resource);
                        return Ok(Some(ClientError::Decode { request, source }));
                    }
                }
                Ok(None) => {
                    // A server that ends watches at once must not be asked in a tight loop.
                    if silent {
                        self.sleep().await;
                    }
                    return Ok(None);
                }
                Err(error) => return Ok(Some(error)),
            }
        }
    }

    async fn take(
        &mut self,
        frame: &Frame,
        revision: &mut Revision,
    ) -> Result<Result<(), serde_json::Error>, Gone> {
        let object: WireObject<'_> = match serde_json::from_slice(&frame.object) {
            Ok(object) => object,
            Err(error) => return Ok(Err(error)),
        };
        let (key, version) = (object.metadata.key(), object.metadata.revision());
        *revision = version.max(*revision);
        self.told = *revision;
        let event = match frame.frame_type {
            FrameType::Bookmark => Event::Progress(version),
            FrameType::Deleted => {
                self.known.remove(&key);
                Event::Deleted {
                    key,
                    revision: version,
                }
            }
            FrameType::Added | FrameType::Modified | FrameType::Error => {
                self.known.insert(key.clone(), version);
                Event::Applied {
                    key,
                    revision: version,
                    object: frame.object.clone(),
                }
            }
        };
        self.consumer.send(event).await?;
        Ok(Ok(()))
    }

    async fn pause(&mut self, operation: &'static str, error: &ClientError) {
        let resource = &self.resource.resource;
        tracing::debug!(resource, operation, error = %error.describe(), "informer failed and will retry");
        self.sleep().await;
    }

    /// Waits with jitter, so that the clients of a restarted server do not come back in one instant.
    async fn sleep(&mut self) {
        let factor = rand::rng().random_range(0.5..1.5);
        tokio::time::sleep(self.wait.mul_f64(factor)).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }
}

type Listed = (Revision, Vec<(Key, Revision, Bytes)>);

fn decode_list(bytes: &Bytes) -> Result<Listed, serde_json::Error> {
    let list: WireList<'_> = serde_json::from_slice(bytes)?;
    let items = list.items.unwrap_or_default();
    let items: Result<Vec<_>, serde_json::Error> = items
        .into_iter()
        .map(|item| {
            let object: WireObject<'_> = serde_json::from_str(item.get())?;
            Ok((
                object.metadata.key(),
                object.metadata.revision(),
                bytes.slice_ref(item.get().as_bytes()),
            ))
        })
        .collect();
    Ok((list.metadata.revision(), items?))
}

#[cfg(test)]
mod tests;
