//! The cluster as DNS sees it: Services and their endpoints, kept as they change.
//!
//! A Service and its EndpointSlices arrive in any order; a slice without its Service is kept and answers nothing.

mod object;

pub(crate) use object::{Endpoint, Port, Target, undashed};

use crate::name::{InvalidName, Name};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use object::{Slice, key};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

/// Namespace and name.
type Key = (String, String);
type SliceId = u64;

/// The records of one cluster domain.
#[derive(Debug)]
pub struct Zone {
    domain: Name,
    name_servers: Vec<IpAddr>,
    namespaces: HashSet<String>,
    /// By namespace, then name.
    services: HashMap<String, HashMap<String, Known>>,
    cluster_ips: HashMap<IpAddr, Key>,
    slices: HashMap<SliceId, Slice>,
    slice_ids: HashMap<Key, SliceId>,
    next_slice: SliceId,
    /// The slices that an address is in: an address is found without a look at the others.
    endpoint_ips: BTreeSet<(IpAddr, SliceId)>,
    serial: u32,
    synced: bool,
}

/// What has been seen of a Service: itself, slices, or both.
#[derive(Debug, Default)]
struct Known {
    target: Option<Target>,
    slices: Vec<SliceId>,
}

/// One name of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner<'a> {
    pub namespace: &'a str,
    pub service: &'a str,
    pub endpoint: Option<&'a Endpoint>,
}

impl Zone {
    /// An empty zone for a domain such as `cluster.local`.
    pub fn new(domain: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            domain: Name::parse(domain)?,
            name_servers: Vec::new(),
            namespaces: HashSet::new(),
            services: HashMap::new(),
            cluster_ips: HashMap::new(),
            slices: HashMap::new(),
            slice_ids: HashMap::new(),
            next_slice: 0,
            endpoint_ips: BTreeSet::new(),
            serial: 0,
            synced: false,
        })
    }

    /// Everything that exists has been told: from now on what is not there does not exist. Before, nobody is told
    /// that a name does not exist.
    pub fn set_synced(&mut self) {
        self.synced = true;
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.synced
    }

    pub(crate) fn domain(&self) -> &Name {
        &self.domain
    }

    /// Counts changes: the SOA's serial.
    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    /// An address that serves this zone.
    pub(crate) fn add_name_server(&mut self, address: IpAddr) {
        self.name_servers.push(address);
    }

    pub(crate) fn name_servers(&self) -> &[IpAddr] {
        &self.name_servers
    }

    /// Adds a Namespace.
    pub fn upsert_namespace(&mut self, name: &str) {
        self.namespaces.insert(name.to_owned());
    }

    /// Removes a Namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Adds or replaces a Service. Whether its names change, but for those of endpoints.
    pub fn upsert_service(&mut self, service: &Service) -> bool {
        let (namespace, name) = key(&service.metadata);
        let target = Target::of(service);
        let known = self.services.get(&namespace).and_then(|known| known.get(&name));
        if known.is_some_and(|known| known.target.as_ref() == Some(&target)) {
            return false;
        }
        self.forget_cluster_ips(&namespace, &name);
        if let Target::Cluster { addresses, .. } = &target {
            for address in addresses {
                self.cluster_ips
                    .insert(*address, (namespace.clone(), name.clone()));
            }
        }
        self.known(namespace, name).target = Some(target);
        self.serial = self.serial.wrapping_add(1);
        true
    }

    /// Removes a Service.
    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        self.forget_cluster_ips(namespace, name);
        if let Some(known) = self.services.get_mut(namespace).and_then(|s| s.get_mut(name)) {
            known.target = None;
            self.forget_unknown(namespace, name);
        }
        self.serial = self.serial.wrapping_add(1);
    }

    /// Adds or replaces an EndpointSlice. Whether its Service has endpoints, or names of endpoints, that it had not.
    pub fn upsert_slice(&mut self, slice: &EndpointSlice) -> bool {
        let (namespace, name) = key(&slice.metadata);
        let new = Slice::of(slice);
        let id = self.slice_ids.get(&(namespace.clone(), name.clone()));
        let known = id.and_then(|id| self.slices.get(id));
        if known.is_some() && known == new.as_ref() {
            return false;
        }
        self.remove_slice(&namespace, &name);
        let Some(slice) = new else { return false };
        let id = self.next_slice;
        self.next_slice += 1;
        self.endpoint_ips
            .extend(slice.endpoints.iter().map(|e| (e.address, id)));
        self.known(namespace.clone(), slice.service.clone())
            .slices
            .push(id);
        self.slices.insert(id, slice);
        self.slice_ids.insert((namespace, name), id);
        true
    }

    /// Removes an EndpointSlice.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        self.serial = self.serial.wrapping_add(1);
        let key = (namespace.to_owned(), name.to_owned());
        let Some((id, slice)) = self
            .slice_ids
            .remove(&key)
            .and_then(|id| Some((id, self.slices.remove(&id)?)))
        else {
            return;
        };
        for endpoint in &slice.endpoints {
            self.endpoint_ips.remove(&(endpoint.address, id));
        }
        if let Some(known) = self
            .services
            .get_mut(namespace)
            .and_then(|s| s.get_mut(&slice.service))
        {
            known.slices.retain(|other| *other != id);
            self.forget_unknown(namespace, &slice.service);
        }
    }

    /// Whether names lead to this address although its pod is not ending. An ending pod that keeps its names, because
    /// its Service publishes all that there is, does not count: it would keep them for as long as it exists.
    pub fn sends_to(&self, address: IpAddr) -> bool {
        let slices = self.endpoint_ips.range((address, 0)..=(address, SliceId::MAX));
        let mut endpoints = slices
            .filter_map(|(_, id)| self.slices.get(id))
            .flat_map(|slice| &slice.endpoints);
        endpoints.any(|endpoint| endpoint.address == address && endpoint.ready && !endpoint.terminating)
    }

    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
            || self
                .services
                .get(namespace)
                .is_some_and(|s| s.values().any(|known| known.target.is_some()))
    }

    /// What a Service's name stands for.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Target> {
        self.services.get(namespace)?.get(name)?.target.as_ref()
    }

    /// The published endpoints of a Service, each with its ports. While the controller moves an endpoint from one
    /// slice to another it is in both.
    pub(crate) fn endpoints(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Iterator<Item = (&Endpoint, &[Port])> {
        let known = self
            .services
            .get(namespace)
            .and_then(|services| services.get(name));
        let target = known.and_then(|known| known.target.as_ref());
        let slices = known.map_or(&[][..], |known| &known.slices);
        slices
            .iter()
            .filter_map(|id| self.slices.get(id))
            .flat_map(|slice| {
                slice
                    .endpoints
                    .iter()
                    .map(|endpoint| (endpoint, &slice.ports[..]))
            })
            .filter(move |(endpoint, _)| target.is_some_and(|target| target.publishes(endpoint)))
    }

    /// Every name that an address has: a Service's, or else those as an endpoint.
    pub(crate) fn owners(&self, address: IpAddr) -> Vec<Owner<'_>> {
        if let Some((namespace, service)) = self.cluster_ips.get(&address) {
            return vec![Owner {
                namespace,
                service,
                endpoint: None,
            }];
        }
        let mut owners: Vec<Owner> = self
            .endpoint_ips
            .range((address, 0)..=(address, SliceId::MAX))
            .filter_map(|(_, id)| self.slices.get(id))
            .filter_map(|slice| {
                let target = self.service(&slice.namespace, &slice.service)?;
                let mut endpoints = slice.endpoints.iter();
                let endpoint = endpoints.find(|e| e.address == address && target.publishes(e))?;
                let (namespace, service) = (&slice.namespace, &slice.service);
                Some(Owner {
                    namespace,
                    service,
                    endpoint: Some(endpoint),
                })
            })
            .collect();
        owners.sort_unstable();
        // In two slices at once, or of two minds about readiness: one name all the same.
        owners.dedup_by_key(|o| {
            (
                o.namespace,
                o.service,
                o.endpoint.and_then(|e| e.hostname.as_deref()),
            )
        });
        owners
    }

    fn known(&mut self, namespace: String, name: String) -> &mut Known {
        self.services
            .entry(namespace)
            .or_default()
            .entry(name)
            .or_default()
    }

    fn forget_unknown(&mut self, namespace: &str, name: &str) {
        let Some(services) = self.services.get_mut(namespace) else {
            return;
        };
        if services
            .get(name)
            .is_some_and(|known| known.target.is_none() && known.slices.is_empty())
        {
            services.remove(name);
        }
        if services.is_empty() {
            self.services.remove(namespace);
        }
    }

    fn forget_cluster_ips(&mut self, namespace: &str, name: &str) {
        let known = self
            .services
            .get(namespace)
            .and_then(|services| services.get(name));
        let Some(Target::Cluster { addresses, .. }) = known.and_then(|known| known.target.as_ref()) else {
            return;
        };
        for address in addresses {
            // Two Services never share an address, but events of a delete and a create may cross.
            let owner = self.cluster_ips.get(address);
            if owner.is_some_and(|(ns, n)| ns == namespace && n == name) {
                self.cluster_ips.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
