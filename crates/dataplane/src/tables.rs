//! Services and EndpointSlices in, changes of the kernel's maps out: incremental, and the same as from scratch.
//!
//! A change is made in two steps, because a packet reads one map after the other and a commit may come in between.
//! [`Tables::change`] adds, replaces and redirects; what nothing refers to any more is left lying, and
//! [`Tables::sweep`] deletes it once every packet that may have read the old state has passed
//! ([`Tables::begin_grace`]). Lowering a count and deleting the slot behind it in one commit was measured to lose 10
//! of 60,000 connections; this way none.

use crate::class::{Class, Pick};
use crate::endpoint_slice::{self, Slice};
use crate::frontend::{
    Commit, Draft, Frontend, Grace, Key, LOCAL_SLOTS, Protocol, State, Target, Value, endpoint_ids,
};
use crate::host_port::{self, HostPort};
use crate::iptables::Ruleset;
use crate::load::{Counted, Loads};
use crate::needs::Needs;
use crate::network_policy::{Connection, Denial, Policies, PolicyId};
use crate::service_port::ServicePort;
use crate::slots::{change_ids, change_slots, change_sources};
use crate::sorted::{SortedMap, SortedSet};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// What the data plane of a node needs to know about the node and the cluster.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Name of the node: endpoints on it are local.
    pub node_name: String,
    /// Zone of the node, for topology hints.
    pub zone: Option<String>,
    /// Pod addresses of the whole cluster. Services are handled in the families of these; in IPv4 if there are none.
    pub pod_cidrs: Vec<IpNet>,
    /// Addresses of Services.
    pub service_cidrs: Vec<IpNet>,
    /// Addresses of Services that the node serves itself, such as the cluster DNS: no rules are made for them.
    pub local_addresses: BTreeSet<IpAddr>,
    /// Addresses for load balancers that the node answers for on its link, unless they are its own.
    pub load_balancer_pool: Vec<IpNet>,
    /// Services are in the chains of [`crate::iptables`] and not in the tables, where all else still is.
    pub by_iptables: bool,
}

impl Config {
    /// Whether an address of a load balancer is out of the pool.
    pub fn is_announced(&self, ip: IpAddr) -> bool {
        self.load_balancer_pool.iter().any(|range| range.contains(&ip))
    }

    /// The address families in use: false for IPv4, true for IPv6.
    pub fn families(&self) -> impl Iterator<Item = bool> {
        let has = |ipv6: bool| self.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6() == ipv6);
        let (ipv4, ipv6) = (has(false) || self.pod_cidrs.is_empty(), has(true));
        [ipv4.then_some(false), ipv6.then_some(true)]
            .into_iter()
            .flatten()
    }
}

/// Namespace and name of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ServiceKey {
    /// A key.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Existing UDP flows to a frontend that have to be looked at: those not sent to one of these endpoints are stale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flows {
    /// The frontend.
    pub frontend: Frontend,
    /// Endpoints that flows may stay with.
    pub endpoints: BTreeSet<Target>,
}

/// What is to be done in the kernel now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Takes effect at once.
    pub commit: Commit,
    /// To be looked at after the commit.
    pub flows: Vec<Flows>,
    /// The Services that were looked at.
    pub services: Vec<ServiceKey>,
}

/// What a health checker of a load balancer is told about a Service with external traffic policy Local.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    /// Where it asks, on every address of the node.
    pub port: u16,
    /// Ready endpoints on this node; zero: packets from outside had better go to other nodes.
    pub local_endpoints: usize,
}

/// Whoever needs elements.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Service(ServiceKey),
    /// Namespace and name.
    Pod((String, String)),
}

/// The desired state and what of it is in the kernel.
#[derive(Debug, Default)]
pub struct Tables {
    config: Config,
    services: BTreeMap<ServiceKey, [Vec<ServicePort>; 2]>,
    slices: BTreeMap<ServiceKey, SortedMap<String, Slice>>,
    /// Service of each slice, by namespace and name of the slice.
    slice_services: BTreeMap<(String, String), ServiceKey>,
    /// Of the pods of this node, those with ports on it.
    host_ports: BTreeMap<(String, String), Vec<HostPort>>,
    needs: BTreeMap<Owner, Needs>,
    /// Who needs an element. If several claim a frontend the first has it: Services before pods, each by name.
    claims: BTreeMap<Key, SortedSet<Owner>>,
    serving: BTreeMap<Frontend, BTreeSet<Target>>,
    /// How many Services use each address as an endpoint that is not ending.
    staying: BTreeMap<IpAddr, usize>,
    health_checks: BTreeMap<ServiceKey, HealthCheck>,
    loads: Loads,
    /// Addresses out of the pool that are in use, and whether they are others than when they were last asked for.
    announced: (BTreeSet<IpAddr>, bool),
    policies: Policies,
    draft: Draft,
    changed: BTreeSet<Owner>,
    changed_roots: BTreeSet<Key>,
}

impl Tables {
    /// No Services, and an empty kernel.
    pub fn new(config: Config) -> Self {
        Self {
            policies: Policies::new(&config),
            config,
            ..Self::default()
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sets the zone of this node.
    pub fn set_zone(&mut self, zone: Option<String>) {
        if self.config.zone != zone {
            self.config.zone = zone;
            self.change_all();
        }
    }

    /// Looks at everything anew.
    fn change_all(&mut self) {
        let services = self.services.keys().cloned().map(Owner::Service);
        let pods = self.host_ports.keys().cloned().map(Owner::Pod);
        self.changed.extend(services.chain(pods));
    }

    /// Adds or updates a pod. Those of other nodes matter to NetworkPolicies alone.
    pub fn set_pod(&mut self, pod: &Pod) {
        let (Some(namespace), Some(name)) = (&pod.metadata.namespace, &pod.metadata.name) else {
            return;
        };
        self.policies.set_pod(pod);
        let is_here =
            pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&self.config.node_name);
        let ports = if is_here { host_port::of(pod) } else { Vec::new() };
        let key = (namespace.clone(), name.clone());
        if ports.is_empty() {
            self.remove_host_ports(key);
        } else if self.host_ports.get(&key) != Some(&ports) {
            self.host_ports.insert(key.clone(), ports);
            self.changed.insert(Owner::Pod(key));
        }
    }

    /// Removes a pod.
    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        self.policies.remove_pod(namespace, name);
        self.remove_host_ports((namespace.to_owned(), name.to_owned()));
    }

    fn remove_host_ports(&mut self, key: (String, String)) {
        if self.host_ports.remove(&key).is_some() {
            self.changed.insert(Owner::Pod(key));
        }
    }

    /// Adds or updates a NetworkPolicy.
    pub fn set_policy(&mut self, policy: &NetworkPolicy) {
        self.policies.set_policy(policy);
    }

    /// Removes a NetworkPolicy.
    pub fn remove_policy(&mut self, id: &PolicyId) {
        self.policies.remove_policy(id);
    }

    /// Adds or updates a namespace, whose labels NetworkPolicies select.
    pub fn set_namespace(&mut self, namespace: &Namespace) {
        self.policies.set_namespace(namespace);
    }

    /// Removes a namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        self.policies.remove_namespace(name);
    }

    /// Which NetworkPolicies forbid a connection to an endpoint, whichever node enforces it; none if it is allowed.
    /// What the node itself sends is never forbidden.
    pub fn judge(&self, connection: &Connection) -> Vec<Denial> {
        self.policies.judge(connection)
    }

    /// Adds or updates a Service. Whether anything that packets depend on is new.
    pub fn set_service(&mut self, service: &Service) -> bool {
        let metadata = &service.metadata;
        let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) else {
            return false;
        };
        let key = ServiceKey::new(namespace, name);
        let ports = [false, true].map(|ipv6| ServicePort::of(service, ipv6));
        let is_new = self.services.get(&key) != Some(&ports);
        if is_new {
            self.services.insert(key.clone(), ports);
            self.changed.insert(Owner::Service(key));
        }
        is_new
    }

    /// Removes a Service.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        if self.services.remove(key).is_some() {
            self.changed.insert(Owner::Service(key.clone()));
        }
    }

    /// The Service that a slice belongs to; none if it is not for this proxy.
    pub fn service_of(slice: &EndpointSlice) -> Option<ServiceKey> {
        let namespace = slice.metadata.namespace.as_ref()?;
        endpoint_slice::service_name(slice).map(|name| ServiceKey::new(namespace, name))
    }

    /// Adds or updates an EndpointSlice.
    pub fn set_slice(&mut self, slice: &EndpointSlice) -> bool {
        let (Some(namespace), Some(name)) = (&slice.metadata.namespace, &slice.metadata.name) else {
            return false;
        };
        let id = (namespace.clone(), name.clone());
        let service = Self::service_of(slice);
        if self.slice_services.get(&id) != service.as_ref() {
            self.remove_slice(&id.0, &id.1);
        }
        let Some(service) = service else {
            return false;
        };
        let slice = Slice::of(slice, &self.config.node_name);
        let slices = self.slices.entry(service.clone()).or_default();
        let is_new = slices.get(&id.1) != Some(&slice);
        if is_new {
            slices.insert(id.1.clone(), slice);
            self.slice_services.insert(id, service.clone());
            self.changed.insert(Owner::Service(service));
        }
        is_new
    }

    /// Removes an EndpointSlice.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        let Some(service) = self
            .slice_services
            .remove(&(namespace.to_owned(), name.to_owned()))
        else {
            return;
        };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(&name.to_owned());
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.changed.insert(Owner::Service(service));
    }

    /// Takes what the kernel holds as the state to change from: at start, and when a commit failed.
    pub fn adopt(&mut self, state: State) {
        self.changed_roots = state.keys().filter_map(root).collect();
        self.policies.adopt(&state);
        self.draft.state = state;
        self.draft.stale.clear();
        self.needs.clear();
        self.claims.clear();
        self.serving.clear();
        self.staying.clear();
        self.loads.forget_users();
        self.announced = (BTreeSet::new(), true);
        self.change_all();
    }

    /// The state that the kernel is in once all changes were committed.
    pub fn state(&self) -> &State {
        &self.draft.state
    }

    /// The frontends of a Service and what happens to packets to them; none before the first change for it.
    pub fn frontends(&self, key: &ServiceKey) -> Vec<(Frontend, Class)> {
        let needs = self.needs.get(&Owner::Service(key.clone())).into_iter();
        needs
            .flat_map(|needs| {
                needs
                    .frontends
                    .iter()
                    .map(|(frontend, wanted)| (*frontend, wanted.class))
            })
            .collect()
    }

    /// The Services that health checkers of load balancers ask about on this node, with what they are told; as of the
    /// last change.
    pub fn health_checks(&self) -> &BTreeMap<ServiceKey, HealthCheck> {
        &self.health_checks
    }

    /// What has to change in the kernel for all that was fed since the last call. The caller commits it, or calls
    /// [`Tables::adopt`].
    pub fn change(&mut self) -> Change {
        let mut change = Change::default();
        let mut roots = std::mem::take(&mut self.changed_roots);
        for owner in std::mem::take(&mut self.changed) {
            let new = match &owner {
                Owner::Service(key) => self.needs_of(key),
                Owner::Pod(key) => self
                    .host_ports
                    .get(key)
                    .map(|ports| host_port::needs(ports))
                    .unwrap_or_default(),
            };
            let old = self.needs.remove(&owner).unwrap_or_default();
            for root in old.roots() {
                if let Some(claims) = self.claims.get_mut(&root) {
                    claims.remove(&owner);
                    if claims.is_empty() {
                        self.claims.remove(&root);
                    }
                }
            }
            for ip in old.staying.iter() {
                if let Some(users) = self.staying.get_mut(ip) {
                    *users -= 1;
                    if *users == 0 {
                        self.staying.remove(ip);
                    }
                }
            }
            for ip in new.staying.iter() {
                *self.staying.entry(*ip).or_default() += 1;
            }
            for root in new.roots() {
                self.claims.entry(root).or_default().insert(owner.clone());
            }
            roots.extend(old.addresses.symmetric_difference(&new.addresses));
            let frontends = old.frontends.keys().chain(new.frontends.keys());
            roots.extend(
                frontends
                    .filter(|frontend| old.frontends.get(frontend) != new.frontends.get(frontend))
                    .map(|frontend| Key::Service(*frontend)),
            );
            if let Owner::Service(key) = &owner {
                self.note_health_check(key, &new);
                change.services.push(key.clone());
            }
            if new != Needs::default() {
                self.needs.insert(owner, new);
            }
        }
        for root in roots {
            match root {
                Key::Service(frontend) => self.change_frontend(frontend, &mut change),
                address => {
                    self.note_announced(address, self.claims.contains_key(&address));
                    let value = self.claimed_in_tables(&address).then_some(Value::Present);
                    self.draft.set(address, value, &mut change.commit);
                }
            }
        }
        self.loads.drop_unused();
        self.policies.change(&mut self.draft, &mut change.commit);
        change
    }

    /// Whether somebody needs an element whose elements are in the tables. Where Services are in the chains of iptables
    /// NetworkPolicies still ask the tables whether a pod is on its way to itself.
    fn claimed_in_tables(&self, key: &Key) -> bool {
        self.claims.get(key).is_some_and(|owners| {
            let mut owners = owners.iter();
            let is_in_tables = !self.config.by_iptables || matches!(key, Key::Hairpin(_));
            is_in_tables || owners.any(|owner| matches!(owner, Owner::Pod(_)))
        })
    }

    /// The chains of all Services in one address family.
    pub fn iptables(&self, ipv6: bool) -> Ruleset {
        let mut ruleset = Ruleset::new(&self.config, ipv6);
        for (key, ports) in &self.services {
            let ports = &ports[usize::from(ipv6)];
            if ports.is_empty() {
                continue;
            }
            let slices = self.slices.get(key).into_iter().flat_map(SortedMap::values);
            let endpoints = endpoint_slice::collect(slices, ipv6);
            for port in ports {
                ruleset.add_port(&self.config, key, port, &endpoints);
            }
        }
        ruleset.finish();
        ruleset
    }

    /// The endpoints whose connections have to be counted, if they are others than at the last call.
    pub fn counted(&mut self) -> Option<BTreeSet<Counted>> {
        self.loads.take_changed()
    }

    /// Says how many connections an endpoint has, if it is one that is counted, and how many began since that was last
    /// said.
    pub fn set_connections(&mut self, endpoint: Counted, connections: u32, begun: u32) {
        let frontends = self.loads.set(endpoint, connections, begun);
        self.changed_roots.extend(frontends.into_iter().map(Key::Service));
    }

    /// Notes the moment, after a change was committed, if something is left that nothing refers to any more.
    pub fn begin_grace(&mut self) -> Option<Grace> {
        self.draft.begin_grace()
    }

    /// Deletes what was left at that moment and has not come to use again. The caller waits until every packet that
    /// was on its way then has passed, calls this, and commits; changes made meanwhile are no harm.
    pub fn sweep(&mut self, grace: Grace) -> Commit {
        self.draft.sweep(grace)
    }

    /// Whether a Service is known, or an EndpointSlice of it.
    pub fn knows(&self, key: &ServiceKey) -> bool {
        self.services.contains_key(key) || self.slices.contains_key(key)
    }

    /// Whether new connections go to this address although its pod is not ending. An ending pod that is the last to
    /// serve does not count: connections go to it for want of a better one, and would not go elsewhere later.
    pub fn sends_to(&self, ip: IpAddr) -> bool {
        self.staying.contains_key(&ip)
    }

    /// The load balancer addresses of the pool that are in use, if they are others than at the last call.
    pub fn announced(&mut self) -> Option<&BTreeSet<IpAddr>> {
        let (announced, changed) = &mut self.announced;
        std::mem::take(changed).then_some(announced)
    }

    fn note_announced(&mut self, address: Key, in_use: bool) {
        let Key::ClusterIp(ip) = address else {
            return;
        };
        if self.config.is_announced(ip) {
            let (announced, changed) = &mut self.announced;
            *changed |= if in_use {
                announced.insert(ip)
            } else {
                announced.remove(&ip)
            };
        }
    }

    fn note_health_check(&mut self, key: &ServiceKey, needs: &Needs) {
        match &needs.health_check {
            Some((port, here)) => {
                let check = HealthCheck {
                    port: *port,
                    local_endpoints: here.len(),
                };
                self.health_checks.insert(key.clone(), check);
            }
            None => {
                self.health_checks.remove(key);
            }
        }
    }

    fn change_frontend(&mut self, frontend: Frontend, change: &mut Change) {
        let wanted = self
            .claims
            .get(&Key::Service(frontend))
            .and_then(|claims| self.needs.get(claims.first()?)?.frontends.get(&frontend));
        let serving = wanted.map(|wanted| wanted.serving.clone());
        let wanted = wanted.filter(|_| self.claimed_in_tables(&Key::Service(frontend)));
        let draft = &mut self.draft;
        let commit = &mut change.commit;
        draft.set(
            Key::Service(frontend),
            wanted.map(|wanted| Value::Class(wanted.class)),
            commit,
        );
        let inside = wanted.and_then(|wanted| wanted.inside);
        draft.set(Key::Inside(frontend), inside.map(Value::Class), commit);

        let lists = [
            (0, wanted.map(|w| &w.cluster)),
            (LOCAL_SLOTS, wanted.map(|w| &w.local)),
        ];
        let sticky = wanted.is_some_and(|wanted| is_sticky(wanted.class) || inside.is_some_and(is_sticky));
        let ids = if sticky {
            endpoint_ids(lists.into_iter().filter_map(|(_, list)| list).flatten().copied())
        } else {
            BTreeMap::new()
        };
        let by_load = wanted.and_then(|wanted| wanted.by_load.as_ref());
        for (first, list) in lists {
            let list = list.map_or(&[][..], Vec::as_slice);
            match by_load {
                Some(by) => {
                    let slots = self.loads.slots(frontend, by, list);
                    change_slots(draft, frontend, first, &slots, &ids, commit);
                }
                None => change_slots(draft, frontend, first, list, &ids, commit),
            }
        }
        let counted = by_load.map(|_| lists.iter().filter_map(|(_, list)| *list).flatten().copied());
        self.loads
            .set_used(frontend, counted.into_iter().flatten().collect());
        change_ids(draft, frontend, &ids, commit);
        let sources = wanted.map_or(&[][..], |wanted| wanted.sources.as_slice());
        change_sources(draft, frontend, sources, commit);

        if frontend.protocol == Protocol::Udp {
            self.change_flows(frontend, serving, change);
        }
    }

    /// UDP flows are stale when their endpoint goes, when the frontend goes, and when endpoints come where there were
    /// none: then the kernel remembers that packets go nowhere.
    fn change_flows(&mut self, frontend: Frontend, serving: Option<BTreeSet<Target>>, change: &mut Change) {
        let old = match &serving {
            Some(serving) => self.serving.insert(frontend, serving.clone()),
            None => self.serving.remove(&frontend),
        };
        let stale = match (&old, &serving) {
            (Some(old), Some(new)) => !new.is_superset(old) || (old.is_empty() && !new.is_empty()),
            _ => true,
        };
        if stale {
            change.flows.push(Flows {
                frontend,
                endpoints: serving.unwrap_or_default(),
            });
        }
    }

    fn needs_of(&self, key: &ServiceKey) -> Needs {
        let mut needs = Needs::default();
        let Some(ports) = self.services.get(key) else {
            return needs;
        };
        for ipv6 in self.config.families() {
            let ports = &ports[usize::from(ipv6)];
            if ports.is_empty() {
                continue;
            }
            let slices = self.slices.get(key).into_iter().flat_map(SortedMap::values);
            let endpoints = endpoint_slice::collect(slices, ipv6);
            for port in ports {
                needs.add_port(&self.config, port, &endpoints);
            }
        }
        needs
    }
}

/// The element by which a frontend or an address is known to the planner.
fn root(key: &Key) -> Option<Key> {
    Some(match *key {
        Key::Service(frontend)
        | Key::Inside(frontend)
        | Key::Slot(frontend, _)
        | Key::SlotId(frontend, _)
        | Key::Endpoint(frontend, _)
        | Key::Source(frontend, _) => Key::Service(frontend),
        Key::Hairpin(_) | Key::ClusterIp(_) => *key,
        Key::Policy(_) => return None,
    })
}

fn is_sticky(class: Class) -> bool {
    matches!(class, Class::Pick(Pick { sticky: Some(_), .. }))
}

#[cfg(test)]
mod tests;
/// The same flows in IPv6.
#[cfg(test)]
#[allow(clippy::duplicate_mod, reason = "by its name each copy knows its family")]
#[path = "tables/tests.rs"]
mod tests_in_ipv6;
