//! The controllers that work on objects of every kind: garbage collection and the end of namespaces.

use super::control_plane::{self, ControlPlane};
use super::tasks::Tasks;
use coracle_api::resources::{self, Verb};
use coracle_client::{Client, metadata_driver};
use coracle_controllers::garbage_collector::GarbageCollector;
use coracle_controllers::namespace::NamespaceController;
use coracle_reconcile::{MetadataMachine, Served};
use std::collections::HashSet;

/// Starts them.
pub fn start(control_plane: &ControlPlane, watcher: Client, tasks: &mut Tasks) {
    let served = served();
    let resources = served.iter().map(|s| s.resource.clone()).collect();
    // Events are many, belong to nobody and expire by themselves.
    let collected = served.iter().filter(|s| s.kind != "Event").cloned().collect();
    let machines: [Box<dyn MetadataMachine>; 2] = [
        Box::new(GarbageCollector::new(collected)),
        Box::new(NamespaceController::new(served)),
    ];
    let members = machines
        .into_iter()
        .map(|machine| {
            let client = control_plane.client(control_plane::controller(machine.name()));
            (machine, client)
        })
        .collect();
    tasks.spawn(
        "garbage collector and namespace controller",
        metadata_driver::run(members, watcher, resources),
    );
}

/// Each kind of stored object, in the version in which it is stored.
fn served() -> Vec<Served> {
    let mut seen = HashSet::new();
    resources::all()
        .iter()
        .filter(|r| r.is_stored() && r.has_verb(Verb::List) && r.has_verb(Verb::Watch))
        .filter(|r| r.group == r.storage_group && seen.insert(r.storage()))
        .map(|r| Served {
            resource: r.gvr(),
            kind: r.kind.to_owned(),
            namespaced: r.namespaced,
        })
        .collect()
}
