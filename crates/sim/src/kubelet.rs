//! A stand-in for the part of a node that runs Pods: it gives each an address, reports it ready after a while, and
//! ends it when it is deleted, after the data plane has let go of it.

use crate::api::{Api, set_condition};
use crate::watch::{Seen, Watch};
use coracle_meta::object::ObjectExt;
use coracle_reconcile::{Action, Cache, Key, PatchType, Precondition};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Addresses of a node: few, so that they are used again soon.
const ADDRESSES: u8 = 12;

/// See the file's head.
pub struct Kubelet {
    node: String,
    number: u8,
    /// Of Pods; those of other nodes are passed over.
    pub watch: Watch,
    pods: BTreeMap<Key, Running>,
    last_address: u8,
}

struct Running {
    object: Value,
    ip: Option<IpAddr>,
    is_ready: bool,
}

/// Something that can be done for a Pod now.
#[derive(Debug, Clone)]
pub enum Move {
    /// The watch tells something.
    Deliver,
    /// The Pod gets an address.
    Start(Key),
    /// The Pod turns ready.
    Ready(Key),
    /// The Pod has ended.
    End(Key),
}

impl Kubelet {
    /// A node without Pods.
    pub fn new(node: &str, number: u8) -> Self {
        Self {
            node: node.to_owned(),
            number,
            watch: Watch::new(Cache::resource_of::<Pod>()),
            pods: BTreeMap::new(),
            last_address: 0,
        }
    }

    /// Everything that can be done now. `sends_to` says whether the data plane still sends to an address.
    pub fn moves(&self, api: &Api, sends_to: impl Fn(IpAddr) -> bool) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.watch.is_behind(api) {
            moves.push(Move::Deliver);
        }
        for (key, pod) in &self.pods {
            let going = pod.object.is_terminating();
            match pod.ip {
                _ if going && pod.ip.is_none_or(|ip| !sends_to(ip)) => moves.push(Move::End(key.clone())),
                None if !going && self.free_address().is_some() => moves.push(Move::Start(key.clone())),
                Some(_) if !going && !pod.is_ready => moves.push(Move::Ready(key.clone())),
                _ => {}
            }
        }
        moves
    }

    /// Does it.
    pub fn act(&mut self, step: &Move, api: &mut Api) -> String {
        match step {
            Move::Deliver => self.deliver(api),
            Move::Start(key) => {
                let Some(number) = self.free_address() else {
                    return String::new();
                };
                self.last_address = number;
                let ip = IpAddr::V4(Ipv4Addr::new(10, 244, self.number, number));
                let mut object = json!({"status": {
                    "phase": "Running", "podIP": ip.to_string(), "podIPs": [{"ip": ip.to_string()}],
                }});
                set_condition(&mut object, "Ready", false, api.now);
                if let Some(pod) = self.pods.get_mut(key) {
                    pod.ip = Some(ip);
                }
                report(api, key, &object);
                format!("{}: {key} has address {ip}", self.node)
            }
            Move::Ready(key) => {
                if let Some(pod) = self.pods.get_mut(key) {
                    pod.is_ready = true;
                }
                let mut object = json!({});
                set_condition(&mut object, "Ready", true, api.now);
                report(api, key, &object);
                format!("{}: {key} is ready", self.node)
            }
            Move::End(key) => {
                let Some(pod) = self.pods.remove(key) else {
                    return String::new();
                };
                let delete = Action::Delete {
                    resource: Cache::resource_of::<Pod>(),
                    key: key.clone(),
                    precondition: Precondition {
                        uid: Some(pod.object.uid().to_owned()),
                        resource_version: None,
                    },
                    propagation: None,
                    grace_seconds: Some(0),
                };
                // Somebody else may have deleted it by force.
                let _ = api.execute(&delete);
                format!("{}: {key} has ended", self.node)
            }
        }
    }

    /// A probe fails, or succeeds again.
    pub fn flip_readiness(&mut self, api: &mut Api, choice: usize) -> String {
        let running: Vec<Key> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.ip.is_some())
            .map(|(key, _)| key.clone())
            .collect();
        let Some(key) = running.get(choice % running.len().max(1)) else {
            return String::new();
        };
        let Some(pod) = self.pods.get_mut(key) else {
            return String::new();
        };
        // One that fails is reported ready again by and by, as one that has just started.
        pod.is_ready = false;
        let mut object = json!({});
        set_condition(&mut object, "Ready", false, api.now);
        report(api, key, &object);
        format!("{}: {key} fails its probe", self.node)
    }

    fn deliver(&mut self, api: &Api) -> String {
        match self.watch.next(api) {
            Some(Seen::Applied(key, object, _)) if object["spec"]["nodeName"] == self.node.as_str() => {
                let said = format!("{} sees Pod {key} {}", self.node, object.resource_version());
                match self.pods.get_mut(&key) {
                    Some(pod) if pod.object.uid() == object.uid() => pod.object = object,
                    _ => {
                        let pod = Running {
                            object,
                            ip: None,
                            is_ready: false,
                        };
                        self.pods.insert(key, pod);
                    }
                }
                said
            }
            Some(Seen::Deleted(key, _)) if self.pods.remove(&key).is_some() => {
                format!("{} sees Pod {key} go", self.node)
            }
            _ => String::new(),
        }
    }

    /// The next free address behind the one that was given last, as the real pool does.
    fn free_address(&self) -> Option<u8> {
        let used: Vec<IpAddr> = self.pods.values().filter_map(|pod| pod.ip).collect();
        let next = (0..ADDRESSES).map(|step| (self.last_address + step) % ADDRESSES + 1);
        next.into_iter()
            .find(|number| !used.contains(&IpAddr::V4(Ipv4Addr::new(10, 244, self.number, *number))))
    }
}

/// Patches the status, whatever has happened to the object meanwhile.
fn report(api: &mut Api, key: &Key, object: &Value) {
    let patch = Action::Patch {
        resource: Cache::resource_of::<Pod>(),
        key: key.clone(),
        subresource: "status",
        patch_type: PatchType::Strategic,
        body: json!({"status": object["status"]}),
    };
    // A Pod that is gone needs no status.
    let _ = api.execute(&patch);
}
