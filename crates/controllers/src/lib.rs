//! The controllers, one file or folder each, named after upstream's: pure functions from a cache to a plan.
//! Upstream: `pkg/controller`, `cmd/kube-controller-manager/app/controller_descriptor.go`.

pub mod cluster_role_aggregation;
pub mod daemon_set;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoint_slice_mirroring;
pub mod endpoints;
pub mod garbage_collector;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod replica_set;
pub mod replication_controller;
pub mod root_ca_publisher;
pub mod service_account;
pub mod service_allocation_repair;
pub mod service_cidrs;
pub mod service_diagnosis;
pub mod service_lb;
pub mod stateful_set;
pub mod taint_eviction;

mod controller_history;
mod controller_ref;
mod int_or_percent;
mod pod;
mod pod_deletion_order;
mod pod_template;
mod pod_template_hash;
mod service_pods;
#[cfg(test)]
mod testing;
mod wire_time;

use coracle_reconcile::Spec;
use ipnet::IpNet;
use jiff::Timestamp;
use std::ops::RangeInclusive;

/// What the controllers of a cluster must know about it.
#[derive(Debug, Clone)]
pub struct Config {
    /// When this control plane started: heartbeats from before say nothing.
    pub started: Timestamp,
    /// Ranges of pod addresses, one a family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ranges of Service addresses.
    pub service_cidrs: Vec<IpNet>,
    /// Ports of the nodes that Services get.
    pub node_ports: RangeInclusive<u16>,
    /// PEM: the authority that signed the API server's certificate.
    pub root_ca_pem: String,
    /// So many ended pods are kept; 0 keeps all.
    pub most_ended_pods: usize,
    /// Addresses of load balancers.
    pub load_balancers: service_lb::Pool,
}

impl Config {
    /// Upstream's `--terminated-pod-gc-threshold`.
    pub const MOST_ENDED_PODS: usize = 12_500;
}

/// Every controller.
pub fn all(config: &Config) -> Vec<Spec> {
    vec![
        endpoint_slice::spec(),
        endpoints::spec(),
        endpoint_slice_mirroring::spec(),
        deployment::spec(),
        daemon_set::spec(),
        stateful_set::spec(),
        replica_set::spec(),
        replication_controller::spec(),
        service_account::spec(),
        service_lb::spec(config.load_balancers.clone()),
        root_ca_publisher::spec(config.root_ca_pem.clone()),
        node_ipam::spec(config.cluster_cidrs.clone(), config.service_cidrs.clone()),
        node_lifecycle::spec(config.started),
        taint_eviction::spec(),
        pod_gc::spec(config.most_ended_pods),
        cluster_role_aggregation::spec(),
        service_cidrs::spec(config.service_cidrs.clone()),
        service_allocation_repair::spec(config.service_cidrs.clone(), config.node_ports.clone()),
        service_diagnosis::spec(),
    ]
}
