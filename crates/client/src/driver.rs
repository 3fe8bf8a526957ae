//! Runs controllers: feeds one cache from watches, maps changes to keys, plans on one task, executes plans
//! concurrently. Upstream: the informers and workers of `pkg/controller`, once for all controllers.
//!
//! Invariants: a key of a controller is planned or executed at most once at a time, and it is not planned again
//! before the cache shows what its last plan wrote. No controller therefore needs upstream's expectations.

mod execute;
mod seen;

use crate::client::Client;
use crate::events::Recorder;
use crate::informer::{self, Event};
use crate::work_queue::WorkQueue;
use coracle_meta::GroupVersionResource;
use coracle_reconcile::{Action, Cache, Key, Outcome, Plan, Spec};
use execute::Finished;
use futures::StreamExt;
use futures::stream::SelectAll;
use jiff::Timestamp;
use seen::Unseen;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

/// Events of one informer that may wait for the driver.
const INFORMER_QUEUE: usize = 256;
/// Changes taken in before the next planning round.
const MOST_CHANGES_A_ROUND: usize = 4096;

/// The clients of a driver.
pub struct Clients {
    /// Lists and watches for the shared cache.
    pub watcher: Client,
    /// Writes, one client a controller: [`Spec::name`] says which.
    pub writer: Box<dyn Fn(&'static str) -> Client + Send>,
}

/// Runs controllers until the future is dropped. `on_synced` is called once, when the cache is complete.
pub async fn run(specs: Vec<Spec>, clients: Clients, recorder: Recorder, on_synced: impl FnOnce() + Send) {
    let mut driver = Driver::new(specs, &clients, &recorder);
    let mut informers = JoinSet::new();
    let mut events = driver.watch(&clients.watcher, &mut informers);
    let mut on_synced = Some(on_synced);
    loop {
        if driver.is_synced() {
            if let Some(call) = on_synced.take() {
                call();
            }
            driver.plan();
        }
        let wake_at = driver.wake_at();
        // Cancel-safe: a stream, a join set and a clock lose nothing when another branch wins.
        tokio::select! {
            change = events.next() => {
                let Some((resource, event)) = change else { return };
                driver.take_in(&resource, event);
                driver.take_in_waiting(&mut events);
                driver.release();
            }
            Some(finished) = driver.running.join_next(), if !driver.running.is_empty() => {
                driver.finish(finished);
                while let Some(more) = driver.running.try_join_next() {
                    driver.finish(more);
                }
                driver.release();
            }
            () = at(wake_at) => {}
        }
    }
}

/// Waits until a moment, or for ever.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// An informer's events with the resource they are about.
pub(crate) type Changes = SelectAll<futures::stream::BoxStream<'static, (Arc<GroupVersionResource>, Event)>>;

/// Starts an informer on `tasks`.
pub(crate) fn follow(
    client: &Client,
    resource: GroupVersionResource,
    tasks: &mut JoinSet<()>,
) -> futures::stream::BoxStream<'static, (Arc<GroupVersionResource>, Event)> {
    let (consumer, mut events) = mpsc::channel(INFORMER_QUEUE);
    let tag = Arc::new(resource.clone());
    tasks.spawn(informer::run(
        client.clone(),
        resource,
        informer::Options::default(),
        consumer,
    ));
    futures::stream::poll_fn(move |context| match events.poll_recv(context) {
        Poll::Ready(event) => Poll::Ready(event.map(|event| (tag.clone(), event))),
        Poll::Pending => Poll::Pending,
    })
    .boxed()
}

struct Controller {
    spec: Spec,
    client: Client,
    recorder: Recorder,
    queue: WorkQueue,
    /// Where each key is that is being worked on and not merely planned.
    stages: HashMap<Key, Stage>,
}

/// What a key that is worked on waits for.
enum Stage {
    /// Its plan is being executed.
    Plan(Arc<Plan>),
    /// What follows the plan is being executed; this has been written before.
    After { failed: bool, unseen: Unseen },
    /// The cache has to show what was written.
    Seen { unseen: Unseen },
}

struct Driver {
    cache: Cache,
    controllers: Vec<Controller>,
    /// Which watches of which controllers a resource concerns.
    interest: HashMap<GroupVersionResource, Vec<(usize, usize)>>,
    unsynced: HashSet<GroupVersionResource>,
    running: JoinSet<Finished>,
}

impl Driver {
    fn new(specs: Vec<Spec>, clients: &Clients, recorder: &Recorder) -> Self {
        let mut cache = Cache::default();
        let mut interest: HashMap<_, Vec<_>> = HashMap::new();
        for (index, spec) in specs.iter().enumerate() {
            spec.register(&mut cache);
            for (watch_index, watch) in spec.watches.iter().enumerate() {
                let interested = interest.entry(watch.resource.clone()).or_default();
                interested.push((index, watch_index));
            }
        }
        let controllers = specs.into_iter().map(|spec| Controller {
            client: (clients.writer)(spec.name),
            recorder: recorder.of(spec.event_source, ""),
            queue: WorkQueue::default(),
            stages: HashMap::new(),
            spec,
        });
        Self {
            controllers: controllers.collect(),
            unsynced: cache.resources().into_iter().collect(),
            interest,
            cache,
            running: JoinSet::new(),
        }
    }

    fn watch(&self, client: &Client, tasks: &mut JoinSet<()>) -> Changes {
        let resources = self.cache.resources().into_iter();
        resources
            .map(|resource| follow(client, resource, tasks))
            .collect()
    }

    fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    fn wake_at(&self) -> Option<Instant> {
        if !self.is_synced() {
            return None;
        }
        let wakes = self.controllers.iter().filter_map(|c| c.queue.wake_at());
        wakes.min()
    }

    /// Takes in everything that is already here, so that a key is planned once for many changes.
    fn take_in_waiting(&mut self, events: &mut Changes) {
        for _ in 0..MOST_CHANGES_A_ROUND {
            match futures::FutureExt::now_or_never(events.next()) {
                Some(Some((resource, event))) => self.take_in(&resource, event),
                _ => return,
            }
        }
    }

    fn take_in(&mut self, resource: &GroupVersionResource, event: Event) {
        let Some(store) = self.cache.erased_mut(resource) else {
            return;
        };
        let change = match event {
            Event::Synced(revision) => {
                store.seen(revision);
                self.unsynced.remove(resource);
                return;
            }
            Event::Progress(revision) => {
                store.seen(revision);
                return;
            }
            Event::Applied {
                key,
                revision,
                object,
            } => {
                store.seen(revision);
                match store.put_bytes(&object) {
                    Ok(change) => change,
                    Err(error) => {
                        tracing::warn!(%resource.resource, %key, %error, "object does not decode and is not seen");
                        return;
                    }
                }
            }
            Event::Deleted { key, revision } => {
                store.seen(revision);
                store.delete(&key)
            }
        };
        for (controller, watch) in self.interest.get(resource).into_iter().flatten() {
            let controller = &mut self.controllers[*controller];
            let settle = controller.spec.settle;
            for key in (controller.spec.watches[*watch].keys)(&change, &self.cache) {
                if settle.is_zero() {
                    controller.queue.add(key);
                } else {
                    controller.queue.put_off(key, Instant::now() + settle);
                }
            }
        }
    }

    /// Plans every key that is ready and starts what the plans want. A worker runs first what was spawned last: the
    /// writes of the controllers at the front of the list do not wait for those of the others.
    fn plan(&mut self) {
        for index in (0..self.controllers.len()).rev() {
            let now = Instant::now();
            while let Some(key) = self.controllers[index].queue.take(now) {
                self.plan_key(index, key, now);
            }
        }
    }

    fn plan_key(&mut self, index: usize, key: Key, now: Instant) {
        let controller = &mut self.controllers[index];
        let spec = &controller.spec;
        let cache = &self.cache;
        let planned =
            std::panic::catch_unwind(AssertUnwindSafe(|| (spec.plan)(&key, cache, Timestamp::now())));
        let Ok(plan) = planned else {
            // The panic hook has said where; other keys and controllers go on.
            let failures = controller.queue.failed(&key, now);
            tracing::error!(controller = spec.name, %key, failures, "planning panicked");
            controller.queue.done(&key);
            return;
        };
        for line in &plan.report {
            tracing::debug!(controller = spec.name, %key, line, "plan");
        }
        let plan = Arc::new(plan);
        if plan.has_actions() {
            controller.stages.insert(key.clone(), Stage::Plan(plan.clone()));
            let (client, recorder) = (controller.client.clone(), controller.recorder.clone());
            self.running
                .spawn(execute::plan(index, key, plan, client, recorder));
        } else {
            self.follow_up(index, key, &plan, &Outcome::default(), Unseen::default());
        }
    }

    fn finish(&mut self, finished: Result<Finished, JoinError>) {
        let finished = match finished {
            Ok(finished) => finished,
            // The process ends: only the end of all tasks cancels one.
            Err(error) if error.is_cancelled() => return,
            Err(_) => {
                tracing::error!("executing a plan panicked");
                return;
            }
        };
        let Finished {
            controller: index,
            key,
            plan: executed,
            outcome,
        } = finished;
        let controller = &mut self.controllers[index];
        let unseen = Unseen::after(&executed, &outcome);
        match controller.stages.remove(&key) {
            Some(Stage::Plan(plan)) => self.follow_up(index, key, &plan, &outcome, unseen),
            Some(Stage::After {
                failed,
                unseen: earlier,
            }) => {
                let failed = report_failure(controller.spec.name, &key, &outcome) || failed;
                self.settle(index, key, failed, earlier.and(unseen));
            }
            Some(Stage::Seen { .. }) | None => {}
        }
    }

    /// Starts what follows the actions of a plan.
    fn follow_up(&mut self, index: usize, key: Key, plan: &Plan, outcome: &Outcome, unseen: Unseen) {
        let controller = &mut self.controllers[index];
        let spec = &controller.spec;
        let failed = report_failure(spec.name, &key, outcome);
        if let (false, Some(delay)) = (failed, plan.requeue_after) {
            controller.queue.add_at(key.clone(), Instant::now() + delay);
        }
        let cache = &self.cache;
        let mut actions = spec.after.as_ref().map_or_else(Vec::new, |after| {
            after(&key, cache, plan, outcome, Timestamp::now())
        });
        actions.retain(|action| {
            controller.recorder.record(action);
            !matches!(action, Action::Event { .. })
        });
        if actions.is_empty() {
            self.settle(index, key, failed, unseen);
            return;
        }
        let follow_up = Arc::new(Plan {
            steps: vec![actions],
            ..Plan::default()
        });
        controller
            .stages
            .insert(key.clone(), Stage::After { failed, unseen });
        let (client, recorder) = (controller.client.clone(), controller.recorder.clone());
        self.running
            .spawn(execute::plan(index, key, follow_up, client, recorder));
    }

    fn settle(&mut self, index: usize, key: Key, failed: bool, unseen: Unseen) {
        let controller = &mut self.controllers[index];
        if failed {
            controller.queue.failed(&key, Instant::now());
        } else {
            controller.queue.forget_failures(&key);
        }
        if unseen.is_empty() {
            controller.queue.done(&key);
        } else {
            controller.stages.insert(key, Stage::Seen { unseen });
        }
    }

    /// Gives back the keys whose writes the cache shows by now.
    fn release(&mut self) {
        for controller in &mut self.controllers {
            let (cache, queue) = (&self.cache, &mut controller.queue);
            controller.stages.retain(|key, stage| {
                let Stage::Seen { unseen } = stage else {
                    return true;
                };
                let seen = unseen.is_seen(cache);
                if seen {
                    queue.done(key);
                }
                !seen
            });
        }
    }
}

fn report_failure(controller: &str, key: &Key, outcome: &Outcome) -> bool {
    let Some(error) = outcome.error() else {
        return false;
    };
    if error.is_conflict() {
        tracing::debug!(controller, %key, %error, "plan was overtaken");
    } else {
        tracing::warn!(controller, %key, %error, "plan failed");
    }
    true
}

#[cfg(test)]
mod tests;
