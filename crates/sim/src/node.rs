//! A node: its Pods, its packet rules and its DNS, each with watches of its own.

use crate::api::Api;
use crate::kubelet::{self, Kubelet};
use crate::watch::{Seen, Watch};
use coracle_dataplane::fake_kernel::{Affinity, FakeKernel, Outcome, Packet, connect, trace};
use coracle_dataplane::{Config, Frontend, Grace, Protocol, ServiceKey, State, Tables};
use coracle_dns::{Answers, SharedZone, Zone};
use coracle_meta::GroupVersionResource;
use coracle_reconcile::Cache;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::RwLock;
use rand::Rng;
use rand::rngs::StdRng;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// So many states of the kernel may one packet meet.
const WINDOW: usize = 4;
/// Packets that are sent to each frontend after a commit.
const SAMPLES: usize = 6;
/// A client that is a Pod, and one that is none.
pub const INSIDE: &str = "10.244.200.1";
/// See [`INSIDE`].
pub const OUTSIDE: &str = "203.0.113.5";

/// See the file's head.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// False when it is lost for good.
    pub is_up: bool,
    /// Its Pods.
    pub kubelet: Kubelet,
    proxy: Proxy,
    names: Names,
}

struct Proxy {
    tables: Tables,
    kernel: FakeKernel,
    watches: Vec<Watch>,
    unsynced: BTreeSet<GroupVersionResource>,
    is_dirty: bool,
    /// What a packet that is on its way may meet.
    window: Vec<State>,
    /// The moment, and the place in the window of the state that was there then.
    grace: Option<(Grace, usize)>,
    /// The frontends of each Service before its last change.
    frontends: BTreeMap<ServiceKey, Vec<Frontend>>,
}

struct Names {
    zone: SharedZone,
    answers: Answers,
    watches: Vec<Watch>,
    unsynced: BTreeSet<GroupVersionResource>,
}

/// Something that a node can do now.
#[derive(Debug, Clone)]
pub enum Move {
    /// A watch of the proxy tells something.
    Proxy(usize),
    /// The proxy commits what follows from what it was told.
    Commit,
    /// Every packet that was on its way when the grace began has passed.
    Sweep,
    /// A watch of the DNS tells something.
    Names(usize),
    /// Something about a Pod.
    Kubelet(kubelet::Move),
}

fn resources() -> [GroupVersionResource; 3] {
    [
        Cache::resource_of::<Service>(),
        Cache::resource_of::<EndpointSlice>(),
        Cache::resource_of::<Namespace>(),
    ]
}

impl Proxy {
    fn new(node: &str, kernel: FakeKernel) -> Self {
        let config = Config {
            node_name: node.to_owned(),
            pod_cidrs: vec!["10.244.0.0/16".parse().expect("a range")],
            service_cidrs: vec!["10.96.0.0/24".parse().expect("a range")],
            ..Config::default()
        };
        let watched = &resources()[..2];
        Self {
            tables: Tables::new(config),
            window: vec![kernel.state().clone()],
            kernel,
            watches: watched.iter().cloned().map(Watch::new).collect(),
            unsynced: watched.iter().cloned().collect(),
            is_dirty: false,
            grace: None,
            frontends: BTreeMap::new(),
        }
    }

    fn deliver(&mut self, index: usize, api: &Api) -> String {
        let watch = &mut self.watches[index];
        let resource = watch.resource.clone();
        match watch.next(api) {
            Some(Seen::Applied(key, object, _)) => {
                if index == 0 {
                    self.tables.set_service(&decode(object));
                } else {
                    self.tables.set_slice(&decode(object));
                }
                self.is_dirty = true;
                format!("proxy sees {} {key}", resource.resource)
            }
            Some(Seen::Deleted(key, _)) => {
                if index == 0 {
                    self.tables
                        .remove_service(&ServiceKey::new(&key.namespace, &key.name));
                } else {
                    self.tables.remove_slice(&key.namespace, &key.name);
                }
                self.is_dirty = true;
                format!("proxy sees {} {key} go", resource.resource)
            }
            Some(Seen::Synced(_)) => {
                if self.unsynced.remove(&resource) && self.unsynced.is_empty() {
                    self.tables.adopt(self.kernel.state().clone());
                    self.is_dirty = true;
                }
                format!("proxy has listed {}", resource.resource)
            }
            None => String::new(),
        }
    }

    fn commit(&mut self, address: IpAddr, random: &mut StdRng) -> Result<String, String> {
        self.is_dirty = false;
        let change = self.tables.change();
        self.kernel
            .commit(&change.commit)
            .map_err(|refusal| format!("the kernel refuses a change: {refusal:?}"))?;
        let operations = change.commit.operations.len();
        self.commited();
        for key in change.services {
            let new: Vec<Frontend> = self.tables.frontends(&key).into_iter().map(|(f, _)| f).collect();
            let old = self
                .frontends
                .insert(key.clone(), new.clone())
                .unwrap_or_default();
            for frontend in old.iter().chain(&new) {
                self.send(&key, *frontend, address, random)?;
            }
        }
        self.begin_grace();
        Ok(format!("proxy commits {operations} operations"))
    }

    fn sweep(&mut self, address: IpAddr, random: &mut StdRng) -> Result<String, String> {
        let Some((grace, at)) = self.grace.take() else {
            return Ok(String::new());
        };
        self.window.drain(..at);
        let commit = self.tables.sweep(grace);
        self.kernel
            .commit(&commit)
            .map_err(|refusal| format!("the kernel refuses a sweep: {refusal:?}"))?;
        self.commited();
        for (key, frontends) in self.frontends.clone() {
            for frontend in frontends {
                self.send(&key, frontend, address, random)?;
            }
        }
        self.begin_grace();
        Ok(format!("proxy sweeps {} elements", commit.operations.len()))
    }

    fn commited(&mut self) {
        self.window.push(self.kernel.state().clone());
        let surplus = self.window.len().saturating_sub(WINDOW);
        self.window.drain(..surplus);
        if let Some((_, at)) = &mut self.grace {
            *at = at.saturating_sub(surplus);
        }
    }

    fn begin_grace(&mut self) {
        if self.grace.is_none() {
            self.grace = self
                .tables
                .begin_grace()
                .map(|grace| (grace, self.window.len() - 1));
        }
    }

    /// Packets that are on their way while the last commits happen: none of them must meet a missing element.
    fn send(
        &self,
        key: &ServiceKey,
        frontend: Frontend,
        node: IpAddr,
        random: &mut StdRng,
    ) -> Result<(), String> {
        let states: Vec<&State> = self.window.iter().collect();
        let destination = if frontend.is_node_port() {
            node
        } else {
            frontend.address
        };
        for source in [INSIDE, OUTSIDE] {
            let packet = Packet {
                source: source.parse().expect("an address"),
                destination: SocketAddr::new(destination, frontend.port),
                protocol: frontend.protocol,
            };
            for _ in 0..SAMPLES {
                let outcome = connect(
                    self.tables.config(),
                    &BTreeSet::from([node]),
                    &states,
                    &mut Affinity::new(),
                    &packet,
                    &mut |bound| random.random_range(0..bound),
                );
                if outcome == Outcome::Lost {
                    return Err(format!(
                        "a packet from {source} to {frontend} of Service {key} met a missing element"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Names {
    fn new() -> Self {
        let zone: SharedZone = Arc::new(RwLock::new(Zone::new("cluster.local").expect("a domain")));
        Self {
            answers: Answers::of(zone.clone()),
            zone,
            watches: resources().map(Watch::new).into(),
            unsynced: resources().into(),
        }
    }

    fn deliver(&mut self, index: usize, api: &Api) -> String {
        let watch = &mut self.watches[index];
        let resource = watch.resource.clone();
        let mut zone = self.zone.write();
        match watch.next(api) {
            Some(Seen::Applied(key, object, _)) => {
                if index == 0 {
                    zone.upsert_service(&decode(object));
                } else if index == 1 {
                    zone.upsert_slice(&decode(object));
                } else {
                    zone.upsert_namespace(&key.name);
                }
                format!("dns sees {} {key}", resource.resource)
            }
            Some(Seen::Deleted(key, _)) => {
                match index {
                    0 => zone.remove_service(&key.namespace, &key.name),
                    1 => zone.remove_slice(&key.namespace, &key.name),
                    _ => zone.remove_namespace(&key.name),
                }
                format!("dns sees {} {key} go", resource.resource)
            }
            Some(Seen::Synced(_)) => {
                if self.unsynced.remove(&resource) && self.unsynced.is_empty() {
                    zone.set_synced();
                }
                format!("dns has listed {}", resource.resource)
            }
            None => String::new(),
        }
    }
}

impl Node {
    /// A node with this number, which makes its name and its addresses.
    pub fn new(number: u8) -> Self {
        let name = format!("node-{number}");
        Self {
            address: IpAddr::V4(Ipv4Addr::new(172, 30, 0, number)),
            is_up: true,
            kubelet: Kubelet::new(&name, number),
            proxy: Proxy::new(&name, FakeKernel::default()),
            names: Names::new(),
            name,
        }
    }

    /// The daemon ends and comes back: it knows nothing any more, but the kernel's rules and the Pods are there.
    pub fn restart(&mut self) {
        let kernel = FakeKernel::new(self.proxy.kernel.state().clone());
        self.proxy = Proxy::new(&self.name, kernel);
        self.names = Names::new();
        self.kubelet.watch.cut();
    }

    /// All its watches.
    pub fn watches(&mut self) -> Vec<&mut Watch> {
        let all = self.proxy.watches.iter_mut().chain(&mut self.names.watches);
        all.chain([&mut self.kubelet.watch]).collect()
    }

    /// Everything that can be done now.
    pub fn moves(&self, api: &Api) -> Vec<Move> {
        if !self.is_up {
            return Vec::new();
        }
        let behind = |watches: &[Watch]| -> Vec<usize> {
            (0..watches.len())
                .filter(|index| watches[*index].is_behind(api))
                .collect()
        };
        let mut moves: Vec<Move> = behind(&self.proxy.watches).into_iter().map(Move::Proxy).collect();
        moves.extend(behind(&self.names.watches).into_iter().map(Move::Names));
        if self.proxy.is_dirty && self.proxy.unsynced.is_empty() {
            moves.push(Move::Commit);
        }
        if self.proxy.grace.is_some() {
            moves.push(Move::Sweep);
        }
        let tables = &self.proxy.tables;
        let kubelet = self.kubelet.moves(api, |ip| tables.sends_to(ip));
        moves.extend(kubelet.into_iter().map(Move::Kubelet));
        moves
    }

    /// Does it. An error is a broken invariant.
    pub fn act(&mut self, step: &Move, api: &mut Api, random: &mut StdRng) -> Result<String, String> {
        let said = match step {
            Move::Proxy(index) => self.proxy.deliver(*index, api),
            Move::Commit => self.proxy.commit(self.address, random)?,
            Move::Sweep => self.proxy.sweep(self.address, random)?,
            Move::Names(index) => self.names.deliver(*index, api),
            Move::Kubelet(step) => return Ok(self.kubelet.act(step, api)),
        };
        Ok(format!("{}: {said}", self.name))
    }

    /// Everything that may happen to a new connection.
    pub fn connect(&self, source: &str, destination: SocketAddr, protocol: Protocol) -> BTreeSet<Outcome> {
        let packet = Packet {
            source: source.parse().expect("an address"),
            destination,
            protocol,
        };
        let nodes = BTreeSet::from([self.address]);
        let state = self.proxy.kernel.state();
        trace(
            self.proxy.tables.config(),
            &nodes,
            &[state],
            &Affinity::new(),
            &packet,
        )
    }

    /// The frontends that the kernel knows.
    pub fn frontends(&self) -> BTreeSet<Frontend> {
        frontends(self.proxy.kernel.state())
    }

    /// The frontends that it would know if it were built from nothing.
    pub fn frontends_from_nothing(&self, api: &Api) -> BTreeSet<Frontend> {
        let mut tables = Tables::new(self.proxy.tables.config().clone());
        for service in api.list::<Service>() {
            tables.set_service(&decode(service.clone()));
        }
        for slice in api.list::<EndpointSlice>() {
            tables.set_slice(&decode(slice.clone()));
        }
        tables.change();
        frontends(tables.state())
    }

    /// What the DNS of this node says to a query.
    pub fn resolve(&self, query: &[u8]) -> Option<Vec<u8>> {
        self.names.answers.answer(query)
    }
}

fn frontends(state: &State) -> BTreeSet<Frontend> {
    let keys = state.keys().filter_map(|key| match key {
        coracle_dataplane::Key::Service(frontend) => Some(*frontend),
        _ => None,
    });
    keys.collect()
}

fn decode<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("what the controllers write decodes")
}
