//! The controllers, one file or folder each, named after upstream's: pure functions from a cache to a plan.
//! Upstream: `pkg/controller`, `cmd/kube-controller-manager/app/controller_descriptor.go`.

pub mod replica_set;
pub mod replication_controller;

mod controller_ref;
mod pod;
mod pod_deletion_order;
mod pod_template;
#[cfg(test)]
mod testing;

use coracle_reconcile::Spec;

/// What the controllers of a cluster must know about it.
#[derive(Debug, Clone)]
pub struct Config {}

/// Every controller.
pub fn all(config: &Config) -> Vec<Spec> {
    let _ = config;
    vec![replica_set::spec(), replication_controller::spec()]
}
