//! What the rules of this node make of a packet: the configuration that the packet tracer of `coracle_dataplane` needs,
//! and the objects behind the rules for NetworkPolicies, which name them.

use super::diagnose::node::Here;
use coracle_client::{Client, ListOptions};
use coracle_dataplane::{Config, Connection, Denial, PolicyId, Tables};
use coracle_reconcile::Kind;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The rules of this node, without what is in the kernel.
pub struct NodeRules {
    /// What the tracer needs of the configuration.
    pub config: Config,
    /// Every address of the node.
    pub node_addresses: BTreeSet<IpAddr>,
    /// The Pods of the cluster; those that may be read.
    pub pods: Vec<Pod>,
    /// The NetworkPolicies of the cluster; those that may be read.
    pub policies: BTreeMap<PolicyId, Arc<NetworkPolicy>>,
    objects: Tables,
}

impl NodeRules {
    /// Reads the objects for packets of this Pod, or of the node. What may not be read is left out: then there are
    /// addresses where there would be names.
    pub async fn read(client: &Client, here: &Here, from: Option<&Pod>) -> Self {
        let (pods, namespaces, policies, cidrs) = tokio::join!(
            listed::<Pod>(client),
            listed::<Namespace>(client),
            listed::<NetworkPolicy>(client),
            listed::<ServiceCIDR>(client),
        );
        let node_addresses: BTreeSet<IpAddr> = here.describe().addresses.into_iter().collect();
        let service_cidrs = service_cidrs(&cidrs);
        let is_service = |ip: &&IpAddr| service_cidrs.iter().any(|cidr| cidr.contains(*ip));
        // A Pod that shares the node's network is no Pod to the rules.
        let own_addresses = pods.iter().chain(from).filter(|pod| !is_on_host_network(pod));
        let config = Config {
            node_name: here.name.clone(),
            pod_cidrs: own_addresses.flat_map(addresses).map(IpNet::from).collect(),
            local_addresses: node_addresses.iter().filter(is_service).copied().collect(),
            service_cidrs,
            ..Config::default()
        };
        let mut objects = Tables::new(config.clone());
        pods.iter().for_each(|pod| objects.set_pod(pod));
        namespaces
            .iter()
            .for_each(|namespace| objects.set_namespace(namespace));
        policies.iter().for_each(|policy| objects.set_policy(policy));
        let policies = policies.into_iter().map(|policy| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let id = PolicyId {
                namespace: text(&policy.metadata.namespace),
                name: text(&policy.metadata.name),
            };
            (id, Arc::new(policy))
        });
        Self {
            policies: policies.collect(),
            config,
            node_addresses,
            pods,
            objects,
        }
    }

    /// The NetworkPolicies that forbid a connection, by the objects alone.
    pub fn judge(&self, connection: &Connection) -> Vec<Denial> {
        self.objects.judge(connection)
    }
}

/// All objects of a kind; none without the right to read them.
pub async fn listed<K: Kind>(client: &Client) -> Vec<K> {
    let all = ListOptions::default();
    let listed = client.api::<K>().list("", &all).await;
    listed.map(|list| list.items).unwrap_or_default()
}

/// Whether a Pod has the addresses of its node.
pub fn is_on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// The addresses of a Pod.
pub fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let status = pod.status.as_ref();
    let ips = status
        .and_then(|status| status.pod_ips.as_ref())
        .into_iter()
        .flatten();
    ips.filter_map(|ip| ip.ip.parse().ok()).collect()
}

fn service_cidrs(cidrs: &[ServiceCIDR]) -> Vec<IpNet> {
    let specs = cidrs.iter().filter_map(|cidr| cidr.spec.as_ref());
    let texts = specs.flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok()).collect()
}
