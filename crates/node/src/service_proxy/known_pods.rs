//! Pods between getting an address and telling it.
//!
//! A pod's address is in its status only after its containers began to start, but its policies have to be in force
//! before. So who attaches a pod to the network tells the proxy of it, and until the status has the address, what
//! watches tell of the pod is completed with it.

use k8s_openapi::api::core::v1::{Pod, PodIP};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Namespace and name.
type Id = (String, String);

/// The pods that watches told of, and those that were attached and have not told their addresses.
#[derive(Debug, Default)]
pub(super) struct KnownPods {
    uids: BTreeMap<Id, Option<String>>,
    attached: BTreeMap<Id, Pod>,
}

impl KnownPods {
    /// A pod was attached; it is returned as if it had told its addresses.
    pub fn attach(&mut self, mut pod: Pod, ips: &[IpAddr]) -> Pod {
        let ips = ips.iter().map(|ip| PodIP { ip: ip.to_string() });
        pod.status.get_or_insert_default().pod_ips = Some(ips.collect());
        if let Some(id) = id(&pod) {
            self.attached.insert(id, pod.clone());
        }
        pod
    }

    /// A watch told of a pod.
    pub fn applied(&mut self, mut pod: Box<Pod>) -> Box<Pod> {
        let Some(id) = id(&pod) else { return pod };
        if let Some(attached) = self.attached.get(&id)
            && attached.metadata.uid == pod.metadata.uid
        {
            let status = pod.status.get_or_insert_default();
            if status.pod_ips.as_ref().is_none_or(Vec::is_empty) {
                status.pod_ips = attached.status.as_ref().and_then(|status| status.pod_ips.clone());
            } else {
                self.attached.remove(&id);
            }
        }
        self.uids.insert(id, pod.metadata.uid.clone());
        pod
    }

    /// A watch told that a pod is gone; one of the same name, which watches have not told of yet, is returned.
    pub fn gone(&mut self, namespace: &str, name: &str) -> Option<&Pod> {
        let id = (namespace.to_owned(), name.to_owned());
        let uid = self.uids.remove(&id);
        if self
            .attached
            .get(&id)
            .is_some_and(|pod| Some(&pod.metadata.uid) == uid.as_ref())
        {
            self.attached.remove(&id);
        }
        self.attached.get(&id)
    }
}

fn id(pod: &Pod) -> Option<Id> {
    Some((pod.metadata.namespace.clone()?, pod.metadata.name.clone()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, ips: &str) -> Pod {
        let text = format!(
            r#"{{"metadata":{{"namespace":"ns","name":"db-0","uid":"{uid}"}},"status":{{"podIPs":{ips}}}}}"#
        );
        serde_json::from_str(&text).expect("a pod")
    }

    fn ips(pod: &Pod) -> Vec<&str> {
        let ips = pod
            .status
            .iter()
            .flat_map(|status| status.pod_ips.iter().flatten());
        ips.map(|ip| ip.ip.as_str()).collect()
    }

    #[test]
    fn an_address_is_known_until_the_pod_tells_it() {
        let mut known = KnownPods::default();
        let address = ["10.244.0.5".parse().expect("an address")];
        assert_eq!(ips(&known.attach(pod("one", "[]"), &address)), ["10.244.0.5"]);
        assert_eq!(ips(&known.applied(Box::new(pod("one", "[]")))), ["10.244.0.5"]);
        assert!(
            ips(&known.applied(Box::new(pod("two", "[]")))).is_empty(),
            "another pod"
        );
        let told = pod("one", r#"[{"ip":"10.244.0.6"}]"#);
        assert_eq!(ips(&known.applied(Box::new(told))), ["10.244.0.6"]);
        assert!(
            ips(&known.applied(Box::new(pod("one", "[]")))).is_empty(),
            "it took it back"
        );
    }

    #[test]
    fn the_end_of_a_pod_is_not_that_of_its_successor() {
        let mut known = KnownPods::default();
        let address = ["10.244.0.5".parse().expect("an address")];
        known.applied(Box::new(pod("old", "[]")));
        known.attach(pod("new", "[]"), &address);
        assert!(known.gone("ns", "db-0").is_some(), "the old one is gone");
        known.applied(Box::new(pod("new", "[]")));
        assert!(known.gone("ns", "db-0").is_none(), "the new one is gone");
        assert!(known.attached.is_empty() && known.uids.is_empty());
    }
}
