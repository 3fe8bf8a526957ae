//! The built-in kinds of the Kubernetes 1.36 API: typed structs, schema facts, defaults, validation, table
//! columns. Pure: no IO, no clock. A folder a kind, `apps/replica_set/`. Upstream: `k8s.io/api`, `pkg/apis`.

pub use k8s_openapi;

mod access;
mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apiserverinternal;
mod apps;
mod at;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod flowcontrol;
mod int_or_percent;
mod label_selector;
mod networking;
mod node;
mod object_meta;
pub mod openapi;
mod policy;
pub mod protobuf;
mod rbac;
mod registry;
mod resource;
pub mod resources;
mod scheduling;
pub mod schema;
pub mod semantic;
mod storage;
mod storagemigration;
pub mod strategy;
pub mod table;
mod warnings;
mod webhook;

#[cfg(test)]
mod tests;
