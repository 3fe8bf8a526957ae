//! Controllers and scheduler of this process, each under the identity that upstream gives it.
//! Upstream counterpart: `cmd/kube-controller-manager/app`, `cmd/kube-scheduler/app`.

use super::control_plane::{self, ControlPlane};
use super::tasks::Tasks;
use crate::certificates::Authority;
use crate::config::ClusterConfig;
use coracle_client::{Client, driver, events, machine_driver};
use coracle_controllers::service_lb::Pool;
use jiff::Timestamp;

/// Starts them.
pub fn start(config: &ClusterConfig, authority: &Authority, control_plane: &ControlPlane, tasks: &mut Tasks) {
    let watcher = control_plane.client(control_plane::admin("system:kube-controller-manager"));
    super::metadata_controllers::start(control_plane, watcher.clone(), tasks);
    let (recorder, recording) = events::recorder(watcher.clone());
    tasks.spawn("event recorder", recording);
    let specs = coracle_controllers::all(&coracle_controllers::Config {
        started: Timestamp::now(),
        cluster_cidrs: config.cluster_cidr.clone(),
        service_cidrs: config.service_cidr.clone(),
        node_ports: config.service_node_port_range.0..=config.service_node_port_range.1,
        root_ca_pem: authority.certificate.clone(),
        most_ended_pods: coracle_controllers::Config::MOST_ENDED_PODS,
        load_balancers: Pool {
            networks: config.load_balancer_pool.clone(),
            node_ports: vec![
                (config.secure_port, "the API server"),
                (config.kubelet_port, "the node's API"),
            ],
        },
    });
    let writers: std::collections::HashMap<&'static str, Client> = specs
        .iter()
        .map(|spec| {
            (
                spec.name,
                control_plane.client(control_plane::controller(spec.name)),
            )
        })
        .collect();
    let fallback = watcher.clone();
    let clients = driver::Clients {
        watcher,
        writer: Box::new(move |name| writers.get(name).unwrap_or(&fallback).clone()),
    };
    tasks.spawn("controllers", driver::run(specs, clients, recorder, || {}));

    let scheduler = control_plane.client(control_plane::admin("system:kube-scheduler"));
    let (recorder, recording) = events::recorder(scheduler.clone());
    tasks.spawn("scheduler's event recorder", recording);
    let machine = coracle_scheduler::Scheduler::default();
    tasks.spawn(
        "scheduler",
        machine_driver::run(machine, scheduler.clone(), scheduler, recorder),
    );
}
