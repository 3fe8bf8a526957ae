//! A controller with a state of its own: fed by watches, asked for its next writes, told what became of them.
//!
//! A [`Spec`](crate::Spec) plans each key from the cache alone. The scheduler cannot: the place it gives to one pod
//! is taken for the next one before any watch has said so. Like a spec it is pure; time comes in as an argument.

use crate::plan::Action;
use crate::spec::Key;
use coracle_meta::{GroupVersionResource, Status};
use jiff::Timestamp;
use serde_json::Value;

/// What a watch says about an object.
#[derive(Debug, Clone, Copy)]
pub enum Observation<'a> {
    /// The object as it is now, as JSON.
    Applied(&'a [u8]),
    /// The object is gone.
    Deleted(&'a Key),
}

/// One write that a machine wants, and events that go with it only if it succeeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Handed back to [`Machine::finished`].
    pub ticket: u64,
    /// The write.
    pub action: Action,
    /// Events to record after a success.
    pub events: Vec<Action>,
}

/// A pure state machine between watches and writes.
pub trait Machine: Send {
    /// The name it acts under, such as `kube-scheduler`.
    fn name(&self) -> &'static str;
    /// What it watches.
    fn resources(&self) -> Vec<GroupVersionResource>;
    /// Takes in a change. A malformed object is an error and changes nothing.
    fn observe(
        &mut self,
        resource: &GroupVersionResource,
        observation: Observation<'_>,
        now: Timestamp,
    ) -> Result<(), serde_json::Error>;
    /// Decides everything that can be decided now. The writes of different steps run concurrently.
    fn step(&mut self, now: Timestamp) -> Vec<Step>;
    /// Learns what became of a step.
    fn finished(&mut self, ticket: u64, result: &Result<Value, Status>, now: Timestamp);
    /// When to ask again even if nothing changes.
    fn wake_at(&self) -> Option<Timestamp>;
}
