//! Which strategy a kind has. Upstream: the storage constructors under `pkg/registry`.

use crate::strategy::{Facts, Kind};
use crate::{apps, core, discovery};

static NAMESPACED: Kind = Kind::new(Facts::NAMESPACED);

/// The strategy of a kind.
pub(crate) fn kind(group: &str, kind: &str) -> &'static Kind {
    match (group, kind) {
        ("", "ConfigMap") => &core::config_map::STRATEGY,
        ("", "Endpoints") => &core::endpoints::STRATEGY,
        ("", "Event") => &core::event::STRATEGY,
        ("", "Namespace") => &core::namespace::STRATEGY,
        ("", "Node") => &core::node::STRATEGY,
        ("", "PersistentVolumeClaim") => &core::persistent_volume_claim::STRATEGY,
        ("", "Pod") => &core::pod::STRATEGY,
        ("", "ReplicationController") => &core::replication_controller::STRATEGY,
        ("", "Secret") => &core::secret::STRATEGY,
        ("", "Service") => &core::service::STRATEGY,
        ("", "ServiceAccount") => &core::service_account::STRATEGY,
        ("apps", "Deployment") => &apps::deployment::STRATEGY,
        ("apps", "ReplicaSet") => &apps::replica_set::STRATEGY,
        ("discovery.k8s.io", "EndpointSlice") => &discovery::endpoint_slice::STRATEGY,
        _ => &NAMESPACED,
    }
}
