//! The vocabulary of controllers: what they watch ([`Spec`]), what they see ([`Cache`]), what they decide
//! ([`Plan`]). Pure: a controller reads a cache and returns a plan; the driver in `client` does the rest.
//!
//! A controller whose decisions depend on each other, such as the scheduler, is a [`Machine`] instead; one that works
//! on objects of every kind is a [`MetadataMachine`].

mod cache;
mod machine;
mod metadata;
mod plan;
pub mod scheduling;
mod spec;

pub use cache::{AnyStore, Cache, Kind, Revision};
pub use machine::{Machine, Observation, Step};
pub use metadata::{Metadata, MetadataChange, MetadataMachine, OwnerReference, Request, Served};
pub use plan::{Action, EventType, Outcome, PatchType, Plan, Precondition, Propagation};
pub use spec::{AfterFn, Change, Key, PlanFn, Spec, Watch};
