//! A simulated cluster: the real controllers, the real scheduler, the real packet tables and the real DNS, in one
//! thread, with a time of its own and a seed that decides who does what next, and what goes wrong.
//!
//! [`World::run`] lives through a seed: people change Deployments and Services, watches break and list again, updates
//! are overtaken, events are late, processes start anew, nodes are lost. After each step, and again when everybody has
//! come to rest, [`invariants`] must hold. The same seed gives the same history, so a failure can be looked at again.
//!
//! Stand-ins are the API server (its allocators are real), the garbage collector, what runs Pods on a node, and the
//! drivers of controllers: theirs are made of tasks, whose order no seed decides.

mod api;
pub mod invariants;
mod kubelet;
mod manager;
mod node;
mod scheduler;
mod users;
mod watch;
mod world;

pub use world::{Failure, Summary, World};
