//! The built-in kinds of the Kubernetes 1.36 API: typed structs, schema facts, defaults, validation, table
//! columns. Pure: no IO, no clock. A folder a kind, `apps/replica_set/`. Upstream: `k8s.io/api`, `pkg/apis`.

pub use k8s_openapi;

mod access;
mod apps;
mod at;
mod batch;
mod coordination;
mod core;
mod discovery;
mod int_or_percent;
mod label_selector;
mod networking;
mod object_meta;
mod policy;
mod rbac;
pub mod protobuf;
mod registry;
pub mod openapi;
pub mod resources;
mod scheduling;
pub mod schema;
pub mod semantic;
pub mod strategy;
pub mod table;

#[cfg(test)]
mod tests;
