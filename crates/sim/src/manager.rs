//! The controllers, driven as `coracle_client::driver` drives them: a key is planned or executed at most once at a
//! time, not again before the cache shows what its last plan wrote, and later after a failure. The driver itself is
//! made of tasks and hash maps, whose order no seed decides.

use crate::api::Api;
use crate::watch::{Seen, Watch};
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupVersionResource, Status};
use coracle_reconcile::{Action, Cache, Key, Outcome, Plan, Revision, Spec};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The controllers of one process and what they see.
pub struct Manager {
    cache: Cache,
    /// By resource.
    pub watches: Vec<Watch>,
    unsynced: BTreeSet<GroupVersionResource>,
    controllers: Vec<Controller>,
    tasks: Vec<Task>,
}

struct Controller {
    spec: Spec,
    ready: BTreeSet<Key>,
    working: BTreeSet<Key>,
    timers: BTreeMap<Key, Timestamp>,
    failures: BTreeMap<Key, u32>,
    unseen: Vec<(Key, Vec<Unseen>)>,
}

/// What the cache has yet to show.
enum Unseen {
    Reached(GroupVersionResource, Revision),
    Deleted(GroupVersionResource, Key, String),
}

/// A plan that is executed, one action after the other.
struct Task {
    controller: usize,
    key: Key,
    plan: Plan,
    results: Vec<Result<Value, Status>>,
    /// What follows the plan, when that is what is executed; and what the plan itself came to.
    after: Option<(bool, Vec<Unseen>)>,
}

/// Something that the process can do now.
#[derive(Debug, Clone, Copy)]
pub enum Move {
    /// A watch tells something.
    Deliver(usize),
    /// A controller plans its next key.
    Plan(usize),
    /// A plan's next action is executed.
    Execute(usize),
}

impl Manager {
    /// Has seen nothing yet.
    pub fn new(specs: Vec<Spec>) -> Self {
        let mut cache = Cache::default();
        specs.iter().for_each(|spec| spec.register(&mut cache));
        let resources = cache.resources();
        let controllers = specs.into_iter().map(|spec| Controller {
            spec,
            ready: BTreeSet::new(),
            working: BTreeSet::new(),
            timers: BTreeMap::new(),
            failures: BTreeMap::new(),
            unseen: Vec::new(),
        });
        Self {
            cache,
            watches: resources.iter().cloned().map(Watch::new).collect(),
            unsynced: resources.into_iter().collect(),
            controllers: controllers.collect(),
            tasks: Vec::new(),
        }
    }

    /// Everything that can be done now.
    pub fn moves(&self, api: &Api) -> Vec<Move> {
        let behind = (0..self.watches.len()).filter(|index| self.watches[*index].is_behind(api));
        let mut moves: Vec<Move> = behind.map(Move::Deliver).collect();
        moves.extend((0..self.tasks.len()).map(Move::Execute));
        if self.unsynced.is_empty() {
            let due = |controller: &Controller| {
                let is_free = |key: &Key| !controller.working.contains(key);
                let mut timers = controller.timers.iter();
                controller.ready.iter().any(is_free) || timers.any(|(key, at)| *at <= api.now && is_free(key))
            };
            let due = (0..self.controllers.len()).filter(|index| due(&self.controllers[*index]));
            moves.extend(due.map(Move::Plan));
        }
        moves
    }

    /// When something comes up by itself.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let timers = self
            .controllers
            .iter()
            .flat_map(|controller| controller.timers.values());
        timers.min().copied()
    }

    /// What waits for something that nobody is about to do.
    pub fn stuck(&self) -> Vec<String> {
        let working = self.controllers.iter().flat_map(|controller| {
            let keys = controller.working.iter();
            keys.map(|key| format!("{} waits to see what it wrote for {key}", controller.spec.name))
        });
        working.collect()
    }

    /// Keys that failed and have not succeeded since, by controller.
    pub fn failing(&self) -> Vec<String> {
        let failing = self.controllers.iter().flat_map(|controller| {
            let keys = controller.failures.iter();
            keys.map(|(key, count)| format!("{} {key} failed {count} times", controller.spec.name))
        });
        failing.collect()
    }

    /// Does it. `choice` chooses among the keys of a controller.
    pub fn act(&mut self, step: Move, api: &mut Api, choice: usize) -> String {
        let said = match step {
            Move::Deliver(index) => self.deliver(index, api),
            Move::Plan(index) => self.plan(index, api.now, choice),
            Move::Execute(index) => self.execute(index, api),
        };
        self.release();
        said
    }

    fn deliver(&mut self, index: usize, api: &Api) -> String {
        let watch = &mut self.watches[index];
        let resource = watch.resource.clone();
        let Some(seen) = watch.next(api) else {
            return String::new();
        };
        let Some(store) = self.cache.erased_mut(&resource) else {
            return String::new();
        };
        let (change, said) = match seen {
            Seen::Synced(revision) => {
                store.seen(revision);
                self.unsynced.remove(&resource);
                return format!("controllers have listed {}", resource.resource);
            }
            Seen::Applied(key, object, revision) => {
                let said = format!(
                    "controllers see {} {key} {}",
                    resource.resource,
                    object.resource_version()
                );
                store.seen(revision);
                let change = store
                    .put(object)
                    .unwrap_or_else(|error| panic!("{said}: {error}"));
                (change, said)
            }
            Seen::Deleted(key, revision) => {
                let said = format!("controllers see {} {key} go", resource.resource);
                store.seen(revision);
                (store.delete(&key), said)
            }
        };
        for controller in &mut self.controllers {
            for watch in controller
                .spec
                .watches
                .iter()
                .filter(|watch| watch.resource == resource)
            {
                for key in (watch.keys)(&change, &self.cache) {
                    let settle = controller.spec.settle;
                    if settle.is_zero() {
                        controller.ready.insert(key);
                    } else {
                        let until = api.now + SignedDuration::try_from(settle).expect("short");
                        controller.timers.insert(key, until);
                    }
                }
            }
        }
        said
    }

    fn plan(&mut self, index: usize, now: Timestamp, choice: usize) -> String {
        let controller = &mut self.controllers[index];
        let due: Vec<Key> = controller
            .timers
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            controller.timers.remove(&key);
            controller.ready.insert(key);
        }
        let free: Vec<&Key> = controller
            .ready
            .iter()
            .filter(|key| !controller.working.contains(*key))
            .collect();
        let Some(key) = free.get(choice % free.len().max(1)).map(|key| (*key).clone()) else {
            return String::new();
        };
        controller.ready.remove(&key);
        controller.working.insert(key.clone());
        let plan = (controller.spec.plan)(&key, &self.cache, now);
        let said = format!(
            "{} plans {key}: {} actions",
            controller.spec.name,
            plan.actions().count()
        );
        self.tasks.push(Task {
            controller: index,
            key,
            plan,
            results: Vec::new(),
            after: None,
        });
        said
    }

    /// Executes the next action of a plan, or ends the plan.
    fn execute(&mut self, index: usize, api: &mut Api) -> String {
        let task = &mut self.tasks[index];
        let name = self.controllers[task.controller].spec.name;
        let failed = task.results.iter().any(Result::is_err);
        // A step that fails lets its own actions run and no further step.
        let mut before = 0;
        let step = task.plan.steps.iter().find(|step| {
            before += step.len();
            task.results.len() < before
        });
        let starts_step = step.is_some_and(|step| before - step.len() == task.results.len());
        let action = task.plan.actions().nth(task.results.len());
        if let Some(action) = action.filter(|_| !(failed && starts_step)) {
            let result = api.execute(action);
            let result = match (action, result) {
                (Action::Delete { .. }, Err(error)) if error.is_not_found() => Ok(Value::Null),
                (_, result) => result,
            };
            let said = format!("{name} {}: {}: {}", task.key, describe(action), outcome(&result));
            task.results.push(result);
            return said;
        }
        let task = self.tasks.remove(index);
        self.finish(task, api)
    }

    fn finish(&mut self, task: Task, api: &Api) -> String {
        let mut unseen = unseen(&task.plan, &task.results);
        let failed = task.results.iter().any(Result::is_err);
        let controller = &mut self.controllers[task.controller];
        let said = format!("{} is through with {}", controller.spec.name, task.key);
        let outcome = Outcome {
            results: task.results,
        };
        let failed = match task.after {
            Some((earlier_failed, earlier)) => {
                unseen.extend(earlier);
                failed || earlier_failed
            }
            None => {
                if let (false, Some(delay)) = (failed, task.plan.requeue_after) {
                    let at = api.now + SignedDuration::try_from(delay).expect("short");
                    let timer = controller.timers.entry(task.key.clone()).or_insert(at);
                    *timer = at.min(*timer);
                }
                let mut actions = controller.spec.after.as_ref().map_or_else(Vec::new, |after| {
                    after(&task.key, &self.cache, &task.plan, &outcome, api.now)
                });
                actions.retain(|action| !matches!(action, Action::Event { .. }));
                if !actions.is_empty() {
                    self.tasks.push(Task {
                        controller: task.controller,
                        key: task.key,
                        plan: Plan {
                            steps: vec![actions],
                            ..Plan::default()
                        },
                        results: Vec::new(),
                        after: Some((failed, unseen)),
                    });
                    return said;
                }
                failed
            }
        };
        if failed {
            let failures = controller.failures.entry(task.key.clone()).or_default();
            *failures += 1;
            let wait = SignedDuration::from_millis(5 << (*failures - 1).min(13));
            let timer = controller
                .timers
                .entry(task.key.clone())
                .or_insert(api.now + wait);
            *timer = (*timer).min(api.now + wait);
        } else {
            controller.failures.remove(&task.key);
        }
        controller.unseen.push((task.key, unseen));
        said
    }

    /// Gives back the keys whose writes the cache shows.
    fn release(&mut self) {
        let cache = &self.cache;
        let reached = |resource: &GroupVersionResource, revision: Revision| {
            let store = cache.erased(resource);
            store.is_none_or(|store| store.revision() >= revision)
        };
        for controller in &mut self.controllers {
            let working = &mut controller.working;
            controller.unseen.retain_mut(|(key, unseen)| {
                unseen.retain(|condition| match condition {
                    Unseen::Reached(resource, revision) => !reached(resource, *revision),
                    Unseen::Deleted(resource, key, uid) => {
                        let metadata = cache.erased(resource).and_then(|store| store.metadata(key));
                        metadata.is_some_and(|metadata| {
                            metadata.deletion_timestamp.is_none() && metadata.uid.as_ref() == Some(uid)
                        })
                    }
                });
                if unseen.is_empty() {
                    working.remove(key);
                }
                !unseen.is_empty()
            });
        }
    }
}

fn unseen(plan: &Plan, results: &[Result<Value, Status>]) -> Vec<Unseen> {
    let written = plan.actions().zip(results);
    let conditions = written.filter_map(|(action, result)| {
        let object = result.as_ref().ok()?;
        match action {
            Action::Create { resource, .. }
            | Action::Update { resource, .. }
            | Action::Patch { resource, .. } => {
                let revision = Revision::parse(object.resource_version());
                Some(Unseen::Reached(resource.clone(), revision))
            }
            Action::Delete {
                resource,
                key,
                precondition,
                ..
            } => Some(Unseen::Deleted(
                resource.clone(),
                key.clone(),
                precondition.uid.clone()?,
            )),
            Action::CreateSubresource { .. } | Action::Event { .. } => None,
        }
    });
    conditions.collect()
}

/// An action in a few words.
pub fn describe(action: &Action) -> String {
    match action {
        Action::Create { resource, object, .. } => format!("create {} {}", resource.resource, object.name()),
        Action::CreateSubresource { key, subresource, .. } => format!("{subresource} of {key}"),
        Action::Update {
            resource,
            key,
            subresource,
            ..
        } => format!("update {} {key} {subresource}", resource.resource),
        Action::Patch { resource, key, .. } => format!("patch {} {key}", resource.resource),
        Action::Delete { resource, key, .. } => format!("delete {} {key}", resource.resource),
        Action::Event { reason, message, .. } => format!("event {reason}: {message}"),
    }
}

/// What became of an action in a few words.
pub fn outcome(result: &Result<Value, Status>) -> String {
    match result {
        Ok(object) if object.is_null() => "done".to_owned(),
        Ok(object) => format!("revision {}", object.resource_version()),
        Err(status) => status.message.clone(),
    }
}
