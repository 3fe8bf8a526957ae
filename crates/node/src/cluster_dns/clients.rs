//! The search paths of this node's pods, for the server to walk. Upstream: the pod index that CoreDNS' `autopath` asks.

use super::{QUEUE, decode};
use crate::config::NodeConfig;
use coracle_client::{Client, Event, informer};
use coracle_dns::{SearchPath, SharedSearchPaths};
use coracle_meta::GroupVersionResource;
use coracle_pods::dns::{ClusterDns, ResolvConf};
use coracle_reconcile::Key;
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Keeps the search paths of the node's pods until dropped.
pub fn follow_clients(
    client: Client,
    node: &NodeConfig,
    paths: SharedSearchPaths,
) -> impl Future<Output = ()> + use<> {
    let options = informer::Options {
        field_selector: format!("spec.nodeName={}", node.name),
        ..informer::Options::default()
    };
    let cluster = ClusterDns {
        servers: node.cluster_dns.iter().map(ToString::to_string).collect(),
        domain: node.cluster_domain.clone(),
    };
    let mut clients = Clients {
        resolv_conf: node.resolv_conf.clone(),
        cluster,
        paths,
        pods: HashMap::new(),
    };
    async move {
        let (sender, mut events) = mpsc::channel(QUEUE);
        let resource = GroupVersionResource::new("", "v1", "pods");
        let apply = async {
            while let Some(event) = events.recv().await {
                match event {
                    Event::Applied { key, object, .. } => {
                        if let Some(pod) = decode::<Pod>(&object) {
                            clients.apply(key, &pod);
                        }
                    }
                    Event::Deleted { key, .. } => clients.forget(&key),
                    Event::Synced(_) | Event::Progress(_) => {}
                }
            }
        };
        tokio::join!(informer::run(client, resource, options, sender), apply);
    }
}

struct Clients {
    /// The node's own: pods have its search domains after the cluster's.
    resolv_conf: PathBuf,
    cluster: ClusterDns,
    paths: SharedSearchPaths,
    /// The addresses of each pod that has a path.
    pods: HashMap<Key, Vec<IpAddr>>,
}

impl Clients {
    fn apply(&mut self, key: Key, pod: &Pod) {
        let addresses = addresses(pod);
        if self.pods.get(&key).is_some_and(|before| *before == addresses) {
            // Neither the specification of a pod's DNS nor its namespace ever changes.
            return;
        }
        self.forget(&key);
        if addresses.is_empty() {
            return;
        }
        let Some(path) = self.path(pod) else { return };
        let mut paths = self.paths.write();
        for address in &addresses {
            paths.insert(*address, path.clone());
        }
        self.pods.insert(key, addresses);
    }

    fn forget(&mut self, key: &Key) {
        let Some(addresses) = self.pods.remove(key) else {
            return;
        };
        for address in addresses {
            // An address that another pod has by now is that pod's.
            if !self.pods.values().flatten().any(|other| *other == address) {
                self.paths.write().remove(address);
            }
        }
    }

    /// Absent for a pod that asks somebody else.
    fn path(&self, pod: &Pod) -> Option<Arc<SearchPath>> {
        let host = std::fs::read_to_string(&self.resolv_conf).unwrap_or_default();
        let conf = ResolvConf::for_pod(pod, &ResolvConf::parse(&host), &self.cluster);
        if !conf
            .nameservers
            .iter()
            .any(|server| self.cluster.servers.contains(server))
        {
            return None;
        }
        let path = SearchPath::new(conf.searches.iter().map(String::as_str));
        path.map_err(|error| tracing::debug!(%error, "pod walks its search path itself"))
            .ok()?
            .map(Arc::new)
    }
}

/// The addresses that are this pod's alone; none once it has ended.
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let on_host = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.host_network == Some(true));
    let status = pod.status.as_ref();
    let ended = status.is_some_and(|s| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")));
    if on_host || ended {
        return Vec::new();
    }
    let addresses = status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten();
    addresses.filter_map(|address| address.ip.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn clients() -> Clients {
        let cluster = ClusterDns {
            servers: vec!["10.96.0.10".into()],
            domain: "cluster.local".into(),
        };
        // There is no such file: no search domains of the node's.
        let resolv_conf = PathBuf::from("/nonexistent/resolv.conf");
        Clients {
            resolv_conf,
            cluster,
            paths: SharedSearchPaths::default(),
            pods: HashMap::new(),
        }
    }

    fn apply(clients: &mut Clients, name: &str, namespace: &str, spec: Value, status: Value) {
        let pod = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec, "status": status});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        clients.apply(Key::new(namespace, name), &pod);
    }

    fn path(clients: &Clients, address: &str) -> Option<Arc<SearchPath>> {
        clients
            .paths
            .read()
            .get(address.parse().expect("an address"))
            .cloned()
    }

    fn of_namespace(namespace: &str) -> Option<Arc<SearchPath>> {
        let first = format!("{namespace}.svc.cluster.local");
        let path = SearchPath::new([first.as_str(), "svc.cluster.local", "cluster.local"]);
        path.expect("names").map(Arc::new)
    }

    fn spec() -> Value {
        json!({"containers": []})
    }

    fn running(addresses: &[&str]) -> Value {
        let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        json!({"phase": "Running", "podIPs": addresses})
    }

    #[test]
    fn a_pod_has_the_path_of_its_namespace_while_it_lives() {
        let mut clients = clients();
        apply(&mut clients, "p", "a", spec(), json!({"phase": "Pending"}));
        apply(
            &mut clients,
            "p",
            "a",
            spec(),
            running(&["10.244.0.5", "fd00::5"]),
        );
        for address in ["10.244.0.5", "fd00::5"] {
            assert_eq!(path(&clients, address), of_namespace("a"));
        }
        apply(
            &mut clients,
            "p",
            "a",
            spec(),
            json!({"phase": "Succeeded", "podIPs": [{"ip": "10.244.0.5"}]}),
        );
        assert_eq!(path(&clients, "10.244.0.5"), None);
        assert_eq!(path(&clients, "fd00::5"), None);
    }

    #[test]
    fn an_address_that_is_used_again_belongs_to_the_new_pod() {
        let mut clients = clients();
        apply(&mut clients, "old", "a", spec(), running(&["10.244.0.5"]));
        apply(&mut clients, "new", "b", spec(), running(&["10.244.0.5"]));
        clients.forget(&Key::new("a", "old"));
        assert_eq!(path(&clients, "10.244.0.5"), of_namespace("b"));
        clients.forget(&Key::new("b", "new"));
        assert_eq!(path(&clients, "10.244.0.5"), None);
    }

    #[test]
    fn pods_that_ask_others_have_none() {
        let mut clients = clients();
        let on_host = json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"});
        apply(&mut clients, "host", "a", on_host, running(&["192.0.2.1"]));
        apply(
            &mut clients,
            "default",
            "a",
            json!({"containers": [], "dnsPolicy": "Default"}),
            running(&["10.244.0.6"]),
        );
        assert_eq!(path(&clients, "192.0.2.1"), None);
        assert_eq!(path(&clients, "10.244.0.6"), None);
    }

    #[test]
    fn the_own_search_domains_of_a_pod_count() {
        let mut clients = clients();
        let own = json!({"containers": [], "dnsConfig": {"searches": ["corp.example"]}});
        apply(&mut clients, "p", "a", own, running(&["10.244.0.5"]));
        let expected = SearchPath::new([
            "a.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
            "corp.example",
        ]);
        assert_eq!(
            path(&clients, "10.244.0.5"),
            expected.expect("names").map(Arc::new)
        );
    }
}
