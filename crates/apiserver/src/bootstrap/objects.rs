//! The default objects. Upstream: `pkg/controlplane/controller/{systemnamespaces,kubernetesservice,
//! defaultservicecidr}`, `pkg/apis/scheduling/v1/helpers.go`, `pkg/controlplane/reconcilers`.

use super::Wanted;
use super::policy;
use super::reconcile::Upkeep;
use coracle_meta::cidr::indexed_ip;
use coracle_meta::{GroupVersionKind, GroupVersionResource};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

/// Where this API server is found.
#[derive(Debug, Clone)]
pub struct ApiEndpoint {
    /// Address and port on which nodes and pods reach it.
    pub advertised: SocketAddr,
    /// The Service networks, the primary one first.
    pub service_networks: Vec<IpNet>,
    /// The CA of client certificates, in PEM; published for extension API servers.
    pub client_ca: String,
}

/// Namespaces of the system.
pub const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

fn wanted(plural: &str, upkeep: Upkeep, object: Value) -> Wanted {
    let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
    let kind = GroupVersionKind::from_api_version(&text("apiVersion"), &text("kind"));
    Wanted {
        resource: GroupVersionResource::new(kind.group, kind.version, plural),
        upkeep,
        object,
    }
}

/// All default objects, in groups: those of a group need those of the groups before it.
pub fn objects(endpoint: &ApiEndpoint) -> Vec<Vec<Wanted>> {
    vec![namespaces(), cluster_wide(endpoint), namespaced(endpoint)]
}

/// Those that come back at once when they are deleted; the others at the next start.
pub fn kept(endpoint: &ApiEndpoint) -> Vec<Wanted> {
    let mut all = namespaces();
    all.extend([
        service_cidr(endpoint),
        kubernetes_service(endpoint),
        kubernetes_endpoints(endpoint),
        kubernetes_endpoint_slice(endpoint),
    ]);
    all
}

fn namespaces() -> Vec<Wanted> {
    NAMESPACES
        .iter()
        .map(|name| {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            wanted("namespaces", Upkeep::IfAbsent, object)
        })
        .collect()
}

fn cluster_wide(endpoint: &ApiEndpoint) -> Vec<Wanted> {
    let mut all = vec![
        priority_class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        priority_class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        service_cidr(endpoint),
    ];
    let role = |object| wanted("clusterroles", Upkeep::Role, object);
    let binding = |object| wanted("clusterrolebindings", Upkeep::Binding, object);
    all.extend(policy::cluster_roles().into_iter().map(role));
    all.extend(policy::cluster_role_bindings().into_iter().map(binding));
    all
}

fn service_cidr(endpoint: &ApiEndpoint) -> Wanted {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": endpoint.service_networks},
    });
    wanted("servicecidrs", Upkeep::ServiceCidr, object)
}

fn priority_class(name: &str, value: i64, description: &str) -> Wanted {
    let object = json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": description,
    });
    wanted("priorityclasses", Upkeep::IfAbsent, object)
}

fn namespaced(endpoint: &ApiEndpoint) -> Vec<Wanted> {
    let mut all = Vec::new();
    all.extend(
        policy::roles()
            .into_iter()
            .map(|o| wanted("roles", Upkeep::Role, o)),
    );
    let binding = |object| wanted("rolebindings", Upkeep::Binding, object);
    all.extend(policy::role_bindings().into_iter().map(binding));
    all.push(wanted(
        "configmaps",
        Upkeep::Exactly,
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
            "data": {"client-ca-file": endpoint.client_ca},
        }),
    ));
    all.push(kubernetes_service(endpoint));
    all.push(kubernetes_endpoints(endpoint));
    all.push(kubernetes_endpoint_slice(endpoint));
    all
}

/// The first address of the primary Service network.
pub fn kubernetes_service_ip(networks: &[IpNet]) -> Option<IpAddr> {
    indexed_ip(*networks.first()?, 1)
}

fn kubernetes_service(endpoint: &ApiEndpoint) -> Wanted {
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "ports": [{
                "name": "https", "protocol": "TCP", "port": 443, "targetPort": endpoint.advertised.port(),
            }],
        },
    });
    if let Some(address) = kubernetes_service_ip(&endpoint.service_networks) {
        object["spec"]["clusterIP"] = address.to_string().into();
    }
    wanted("services", Upkeep::Service, object)
}

fn kubernetes_endpoints(endpoint: &ApiEndpoint) -> Wanted {
    wanted(
        "endpoints",
        Upkeep::Exactly,
        json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
            },
            "subsets": [{
                "addresses": [{"ip": endpoint.advertised.ip()}],
                "ports": [{"name": "https", "port": endpoint.advertised.port(), "protocol": "TCP"}],
            }],
        }),
    )
}

fn kubernetes_endpoint_slice(endpoint: &ApiEndpoint) -> Wanted {
    let family = if endpoint.advertised.is_ipv4() {
        "IPv4"
    } else {
        "IPv6"
    };
    wanted(
        "endpointslices",
        Upkeep::Exactly,
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": family,
            "endpoints": [{"addresses": [endpoint.advertised.ip()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": endpoint.advertised.port(), "protocol": "TCP"}],
        }),
    )
}
