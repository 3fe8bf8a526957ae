//! What the scheduler knows of the cluster. Kept up to date change by change; a copy is cheap, so that a preemption
//! can be tried on one. Upstream: `pkg/scheduler/backend/cache`.

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use coracle_meta::Selector;
use coracle_meta::labels::Requirement;
use coracle_reconcile::Key;
use k8s_openapi::api::core::v1::Node;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// See the file's head.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, Arc<NodeInfo>>,
    /// Where each pod is.
    places: Arc<HashMap<Key, String>>,
    namespaces: Arc<HashMap<String, BTreeMap<String, String>>>,
    /// What Services and workloads select, by kind and key.
    selectors: Arc<BTreeMap<(String, Key), Selector>>,
    /// Pods that others were removed for, and where they will go when those are gone.
    nominated: Arc<BTreeMap<Key, (Arc<PodInfo>, String)>>,
}

impl Snapshot {
    /// The nodes that exist, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeInfo>> {
        self.nodes.values().filter(|info| info.node().is_some())
    }

    /// A node that exists.
    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.nodes.get(name).filter(|info| info.node().is_some())
    }

    /// The labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }

    /// The pod of this key, if it has a place.
    pub fn pod(&self, key: &Key) -> Option<&Arc<PodInfo>> {
        let info = self.nodes.get(self.places.get(key)?)?;
        info.pods().find(|pod| pod.key == *key)
    }

    /// Sets a node and returns the one before.
    pub fn put_node(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let info = Arc::make_mut(self.nodes.entry(name).or_default());
        let before = info.node().cloned();
        info.set_node(Some(node));
        before
    }

    /// Removes a node; its pods stay known until they are gone themselves.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            Arc::make_mut(info).set_node(None);
            if info.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Puts a pod on a node, wherever it was before.
    pub fn put_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.key);
        Arc::make_mut(&mut self.places).insert(pod.key.clone(), node.to_owned());
        let info = self.nodes.entry(node.to_owned()).or_default();
        Arc::make_mut(info).add_pod(pod);
    }

    /// Takes a pod off its node.
    pub fn remove_pod(&mut self, key: &Key) -> Option<Arc<PodInfo>> {
        let node = Arc::make_mut(&mut self.places).remove(key)?;
        let info = self.nodes.get_mut(&node)?;
        let pod = Arc::make_mut(info).remove_pod(key);
        if info.is_empty() {
            self.nodes.remove(&node);
        }
        pod
    }

    /// Keeps a place on a node for a pod, or gives it up.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: Option<&str>) {
        if node.is_none() && !self.nominated.contains_key(&pod.key) {
            return;
        }
        let nominated = Arc::make_mut(&mut self.nominated);
        match node {
            Some(node) => nominated.insert(pod.key.clone(), (pod.clone(), node.to_owned())),
            None => nominated.remove(&pod.key),
        };
    }

    /// This cluster with the pods in place that a node is kept for and that `pod` must give way to. Absent if there
    /// are none.
    pub(crate) fn with_nominated(&self, pod: &PodInfo, node: &str) -> Option<Self> {
        let kept = self.nominated.values().filter(|(other, place)| {
            place == node && other.key != pod.key && other.priority() >= pod.priority()
        });
        let mut trial: Option<Self> = None;
        for (other, place) in kept {
            trial
                .get_or_insert_with(|| self.clone())
                .put_pod(other.clone(), place);
        }
        trial
    }

    /// Sets or removes the labels of a namespace.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        let namespaces = Arc::make_mut(&mut self.namespaces);
        match labels {
            Some(labels) => namespaces.insert(name.to_owned(), labels),
            None => namespaces.remove(name),
        };
    }

    /// Sets or removes what a Service or workload selects.
    pub fn set_selector(&mut self, kind: &str, key: &Key, selector: Option<Selector>) {
        let selectors = Arc::make_mut(&mut self.selectors);
        let id = (kind.to_owned(), key.clone());
        match selector {
            Some(selector) => selectors.insert(id, selector),
            None => selectors.remove(&id),
        };
    }

    /// The pods that belong together with a pod: selected by the same Services and by its own workload. Absent if
    /// nothing selects it. Upstream: `helper.DefaultSelector`.
    pub fn kin_selector(&self, pod: &PodInfo) -> Option<Selector> {
        let from = ("Service".to_owned(), Key::new(pod.namespace(), ""));
        let services = self
            .selectors
            .range(from..)
            .take_while(|((kind, key), _)| kind == "Service" && key.namespace == pod.namespace());
        let mut requirements: Vec<Requirement> = services
            .filter(|(_, selector)| selector.matches(&pod.pod.metadata.labels))
            .flat_map(|(_, selector)| selector.requirements().iter().cloned())
            .collect();
        let owners = pod.pod.metadata.owner_references.iter().flatten();
        for owner in owners.filter(|owner| owner.controller == Some(true)) {
            let id = (owner.kind.clone(), Key::new(pod.namespace(), owner.name.clone()));
            let own = self.selectors.get(&id).into_iter();
            requirements.extend(own.flat_map(|selector| selector.requirements().iter().cloned()));
        }
        requirements.dedup();
        (!requirements.is_empty()).then(|| Selector::from_requirements(requirements))
    }
}
