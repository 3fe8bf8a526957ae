//! Which endpoints a node uses. Upstream: pkg/proxy/topology.go.

use crate::endpoint_slice::Endpoint;
use crate::service_port::ServicePort;

/// The endpoints a node uses for one Service port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Usable<'a> {
    /// For traffic policy Cluster.
    pub cluster: Vec<&'a Endpoint>,
    /// For traffic policy Local.
    pub local: Vec<&'a Endpoint>,
    /// Whether there is any endpoint anywhere, even if this node must not use it.
    pub any: bool,
}

/// Sorts the endpoints of a Service port: ready ones, or, where there are none, those that still serve while they
/// end — for each traffic policy on its own.
pub(crate) fn categorize<'a>(
    endpoints: &'a [Endpoint],
    port: &ServicePort,
    node_name: &str,
    zone: Option<&str>,
) -> Usable<'a> {
    let mut usable = Usable::default();
    let ending = |endpoint: &&Endpoint| endpoint.serving && endpoint.terminating;
    if port.uses_cluster_endpoints() {
        let preference = Preference::from_hints(endpoints, node_name, zone);
        usable.cluster = endpoints
            .iter()
            .filter(|endpoint| endpoint.ready && preference.allows(endpoint))
            .collect();
        if usable.cluster.is_empty() {
            usable.cluster = endpoints.iter().filter(ending).collect();
        }
        usable.any = !usable.cluster.is_empty();
    }
    if port.uses_local_endpoints() {
        usable.any |= endpoints
            .iter()
            .any(|endpoint| endpoint.ready || ending(&endpoint));
        let here = || endpoints.iter().filter(|endpoint| endpoint.local);
        usable.local = here().filter(|endpoint| endpoint.ready).collect();
        if usable.local.is_empty() {
            usable.local = here().filter(ending).collect();
        }
    }
    usable
}

/// Which of the ready endpoints the hints in the slices ask for.
enum Preference<'a> {
    None,
    Zone(&'a str),
    Node(&'a str),
}

impl<'a> Preference<'a> {
    /// Hints count only if every ready endpoint has them and one is for us.
    fn from_hints(endpoints: &[Endpoint], node_name: &'a str, zone: Option<&'a str>) -> Self {
        let ready = || endpoints.iter().filter(|endpoint| endpoint.ready);
        if ready().all(|endpoint| !endpoint.node_hints.is_empty())
            && ready().any(|endpoint| Preference::Node(node_name).allows(endpoint))
        {
            return Preference::Node(node_name);
        }
        if let Some(zone) = zone
            && ready().all(|endpoint| !endpoint.zone_hints.is_empty())
            && ready().any(|endpoint| Preference::Zone(zone).allows(endpoint))
        {
            return Preference::Zone(zone);
        }
        Preference::None
    }

    fn allows(&self, endpoint: &Endpoint) -> bool {
        match self {
            Preference::None => true,
            Preference::Zone(zone) => endpoint.zone_hints.iter().any(|hint| hint == zone),
            Preference::Node(node) => endpoint.node_hints.iter().any(|hint| hint == node),
        }
    }
}

#[cfg(test)]
mod tests;
