//! The vocabulary of controllers: what they watch ([`Spec`]), what they see ([`Cache`]), what they decide
//! ([`Plan`]). Pure: a controller reads a cache and returns a plan; the driver in `client` does the rest.

mod cache;
mod plan;
mod spec;

pub use cache::{AnyStore, Cache, Kind, Revision};
pub use plan::{Action, EventType, Outcome, PatchType, Plan, Precondition, Propagation};
pub use spec::{Change, Key, Spec, Watch};
