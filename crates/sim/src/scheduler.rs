//! The scheduler, driven as `coracle_client::machine_driver` drives it.

use crate::api::Api;
use crate::manager::{describe, outcome};
use crate::watch::{Seen, Watch};
use coracle_meta::GroupVersionResource;
use coracle_meta::object::ObjectExt;
use coracle_reconcile::{Machine, Observation, Step};
use coracle_scheduler::Scheduler;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// A scheduler and the writes that it waits for.
pub struct Scheduling {
    machine: Scheduler,
    /// By resource.
    pub watches: Vec<Watch>,
    unsynced: BTreeSet<GroupVersionResource>,
    writes: Vec<Step>,
    /// Something was seen since it last decided.
    is_dirty: bool,
}

/// Something that the scheduler can do now.
#[derive(Debug, Clone, Copy)]
pub enum Move {
    /// A watch tells something.
    Deliver(usize),
    /// It decides all that it can.
    Decide,
    /// A write is executed.
    Write(usize),
}

impl Default for Scheduling {
    fn default() -> Self {
        let machine = Scheduler::default();
        let resources = machine.resources();
        Self {
            watches: resources.iter().cloned().map(Watch::new).collect(),
            unsynced: resources.into_iter().collect(),
            machine,
            writes: Vec::new(),
            is_dirty: true,
        }
    }
}

impl Scheduling {
    /// Everything that can be done now.
    pub fn moves(&self, api: &Api) -> Vec<Move> {
        let behind = (0..self.watches.len()).filter(|index| self.watches[*index].is_behind(api));
        let mut moves: Vec<Move> = behind.map(Move::Deliver).collect();
        moves.extend((0..self.writes.len()).map(Move::Write));
        let is_due = self.machine.wake_at().is_some_and(|at| at <= api.now);
        if self.unsynced.is_empty() && (self.is_dirty || is_due) {
            moves.push(Move::Decide);
        }
        moves
    }

    /// When something comes up by itself.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.machine.wake_at()
    }

    /// Does it.
    pub fn act(&mut self, step: Move, api: &mut Api) -> String {
        match step {
            Move::Deliver(index) => self.deliver(index, api),
            Move::Decide => {
                self.is_dirty = false;
                let steps = self.machine.step(api.now);
                let said = format!("the scheduler decides {} writes", steps.len());
                self.writes.extend(steps);
                said
            }
            Move::Write(index) => {
                let step = self.writes.remove(index);
                let result = api.execute(&step.action);
                let said = format!("scheduler: {}: {}", describe(&step.action), outcome(&result));
                self.machine.finished(step.ticket, &result, api.now);
                self.is_dirty = true;
                said
            }
        }
    }

    fn deliver(&mut self, index: usize, api: &Api) -> String {
        let watch = &mut self.watches[index];
        let resource = watch.resource.clone();
        let Some(seen) = watch.next(api) else {
            return String::new();
        };
        let (observed, said) = match &seen {
            Seen::Synced(_) => {
                self.unsynced.remove(&resource);
                return format!("the scheduler has listed {}", resource.resource);
            }
            Seen::Applied(key, object, _) => {
                let bytes = object.to_string();
                let observed =
                    self.machine
                        .observe(&resource, Observation::Applied(bytes.as_bytes()), api.now);
                let version = object.resource_version();
                (
                    observed,
                    format!("the scheduler sees {} {key} {version}", resource.resource),
                )
            }
            Seen::Deleted(key, _) => {
                let observed = self
                    .machine
                    .observe(&resource, Observation::Deleted(key), api.now);
                (
                    observed,
                    format!("the scheduler sees {} {key} go", resource.resource),
                )
            }
        };
        observed.unwrap_or_else(|error| panic!("{said}: {error}"));
        self.is_dirty = true;
        said
    }
}
