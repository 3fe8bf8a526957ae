//! Cluster IPs and node ports for Services: taken before a Service is stored, given back if it is not, and given
//! back when it goes. Upstream: `pkg/registry/core/service/storage/alloc.go`.
//!
//! The allocators live in memory and are filled from the stored Services at start, so nothing can leak: what no
//! Service holds is free. A dry run takes and gives back, which tells the truth about conflicts.

use super::families::{init_ip_family_fields, is_settled_prefer_dual_stack, normalize_cluster_ips};
use super::ip_addresses::{IpChange, IpChanges};
use super::ip_allocator::{IpAllocator, IpError, IpFamily};
use super::offsets::Owner;
use super::port_allocator::{PortAllocator, PortError, PortRange};
use super::spec::ServiceSpec;
use crate::plugin::{Admission, AdmissionRequest, Operation, Reader};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, FieldPath, GroupResource, Status};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::HashMap;
use std::net::IpAddr;

/// Allocates for Services; the last of the admission plugins, since what it takes must not be changed after it.
pub struct ServiceAllocator {
    /// The cluster's families, the default one first.
    ips: Vec<IpAllocator>,
    ports: PortAllocator,
    changes: IpChanges,
}

/// What a request has taken so far.
#[derive(Default)]
struct Taken {
    ips: Vec<IpAddr>,
    ports: Vec<i64>,
}

impl ServiceAllocator {
    /// Everything is free. `networks` are the Service networks, one a family, the default one first; allocations
    /// and releases of addresses are told to `changes`.
    pub fn new(networks: &[IpNet], node_ports: PortRange, changes: IpChanges) -> Self {
        Self {
            ips: networks.iter().copied().map(IpAllocator::new).collect(),
            ports: PortAllocator::new(node_ports),
            changes,
        }
    }

    /// The same, with these numbers to choose by among what is free: for who wants to see the same again.
    pub fn choosing(self, random: fn() -> u64) -> Self {
        Self {
            ips: self.ips.into_iter().map(|ips| ips.choosing(random)).collect(),
            ports: self.ports.choosing(random),
            ..self
        }
    }

    /// Takes what the stored Services hold; to be called before the first request. Complaints are about Services
    /// that hold what another holds, or what is outside of the configured ranges.
    pub fn restore(&self, services: &[Value]) -> Vec<String> {
        let mut complaints = Vec::new();
        for service in services {
            let Some(spec) = ServiceSpec::read(service) else {
                continue;
            };
            let owner = owner_of(service);
            let mut complain = |what: String, error: String| {
                complaints.push(format!(
                    "Service {}/{}: {what}: {error}",
                    service.namespace(),
                    service.name()
                ));
            };
            for ip in spec.held_ips() {
                if let Err(error) = self.take_ip(ip, &owner) {
                    complain(ip.to_string(), error.to_string());
                }
            }
            let mut ports = spec.held_ports();
            ports.sort_unstable();
            ports.dedup();
            for port in ports {
                if let Err(error) = self.ports.allocate(port, &owner) {
                    complain(port.to_string(), error.to_string());
                }
            }
        }
        complaints
    }

    fn configured(&self) -> Vec<IpFamily> {
        self.ips.iter().map(IpAllocator::family).collect()
    }

    fn of_family(&self, family: IpFamily) -> Option<&IpAllocator> {
        self.ips.iter().find(|a| a.family() == family)
    }

    fn take_ip(&self, ip: IpAddr, owner: &Owner) -> Result<(), IpError> {
        match self.of_family(IpFamily::of(ip)) {
            Some(allocator) => allocator.allocate(ip, owner),
            // A family that the cluster had once: nothing of it is ever handed out.
            None => Ok(()),
        }
    }

    fn release(&self, ips: &[IpAddr], ports: &[i64], owner: &Owner) {
        for ip in ips {
            if let Some(allocator) = self.of_family(IpFamily::of(*ip)) {
                allocator.release(*ip, owner);
            }
        }
        for port in ports {
            self.ports.release(*port, owner);
        }
    }

    fn allocate(&self, service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        let Some(mut new) = ServiceSpec::read(service) else {
            return Ok(());
        };
        let old = old.and_then(ServiceSpec::read);
        let owner = owner_of(service);
        let name = service.name().to_owned();
        let invalid = |errors: Vec<FieldError>| Status::invalid("", "Service", &name, &errors);
        if let Some(old) = &old {
            keep_allocated(&mut new, old);
        }
        normalize_cluster_ips(&mut new, old.as_ref());
        init_ip_family_fields(&mut new, old.as_ref(), &self.configured()).map_err(invalid)?;

        let mut taken = Taken::default();
        let result = self
            .allocate_ips(&mut new, old.as_ref(), &owner, &name, &mut taken)
            .and_then(|()| self.allocate_ports(&mut new, old.as_ref(), &owner, &name, &mut taken));
        if let Err(status) = result {
            self.release(&taken.ips, &taken.ports, &owner);
            return Err(status);
        }
        new.write(service);
        Ok(())
    }

    fn allocate_ips(
        &self,
        new: &mut ServiceSpec,
        old: Option<&ServiceSpec>,
        owner: &Owner,
        name: &str,
        taken: &mut Taken,
    ) -> Result<(), Status> {
        if new.is_external_name() || new.is_headless() {
            return Ok(());
        }
        // An update takes addresses when the Service had none, or only the second one.
        let first = match old {
            Some(old) if is_settled_prefer_dual_stack(new, old) => return Ok(()),
            Some(old) if old.is_headless() => return Ok(()),
            Some(old) if !old.is_external_name() => {
                if (old.ip_families.len(), new.ip_families.len()) != (1, 2) {
                    return Ok(());
                }
                1
            }
            _ => 0,
        };
        new.cluster_ips
            .resize(new.ip_families.len().max(new.cluster_ips.len()), String::new());
        for i in first..new.ip_families.len() {
            let Some(allocator) = new.family(i).and_then(|f| self.of_family(f)) else {
                continue;
            };
            let refused = |detail: String| {
                let field = FieldPath::new("spec.clusterIPs");
                let error = FieldError::invalid(&field, new.cluster_ips.clone(), &detail);
                Status::invalid("", "Service", name, &[error])
            };
            let wanted = &new.cluster_ips[i];
            let ip = if wanted.is_empty() {
                allocator.allocate_next(owner).map_err(|error| {
                    Status::internal(format!(
                        "failed to allocate a serviceIP for Service {name:?}: {error}"
                    ))
                })?
            } else {
                let ip: IpAddr = wanted.parse().map_err(|error| refused(format!("{error}")))?;
                allocator
                    .allocate(ip, owner)
                    .map_err(|error| refused(format!("failed to allocate IP {ip}: {error}")))?;
                ip
            };
            taken.ips.push(ip);
            if new.cluster_ips[i].is_empty() {
                new.cluster_ips[i] = ip.to_string();
            }
        }
        if let Some(ip) = new.cluster_ips.first() {
            new.cluster_ip.clone_from(ip);
        }
        Ok(())
    }

    fn allocate_ports(
        &self,
        new: &mut ServiceSpec,
        old: Option<&ServiceSpec>,
        owner: &Owner,
        name: &str,
        taken: &mut Taken,
    ) -> Result<(), Status> {
        let mut held: Vec<i64> = old.map(ServiceSpec::held_ports).unwrap_or_default();
        let mut take = |port: i64| -> Result<(), PortError> {
            // Of one Service, ports of several protocols may share a number.
            if !held.contains(&port) {
                self.ports.allocate(port, owner)?;
                held.push(port);
                taken.ports.push(port);
            }
            Ok(())
        };
        if new.may_have_node_ports() {
            let refused = |i: usize, port: i64, error: &PortError| {
                let field = FieldPath::new("spec.ports").index(i).child("nodePort");
                let error = FieldError::invalid(&field, port, &error.to_string());
                Status::invalid("", "Service", name, &[error])
            };
            let full =
                |error: &PortError| Status::internal(format!("failed to allocate a nodePort: {error}"));
            // Ports of one number and different protocols get one node port.
            let mut of_port: HashMap<i64, i64> = HashMap::new();
            let named: Vec<(i64, i64)> = new.ports.iter().map(|p| (p.port, p.node_port)).collect();
            let mut named_twice = Vec::new();
            for i in 0..new.ports.len() {
                let (port, wanted) = (new.ports[i].port, new.ports[i].node_port);
                if wanted != 0 {
                    let shared = named[..i].iter().any(|(p, n)| *n == wanted && *p != port);
                    if shared {
                        named_twice.push((i, wanted));
                    }
                    take(wanted).map_err(|error| refused(i, wanted, &error))?;
                    of_port.entry(port).or_insert(wanted);
                }
            }
            if let (None, Some((i, port))) = (old, named_twice.first()) {
                return Err(refused(*i, *port, &PortError::Allocated));
            }
            if new.needs_node_ports() {
                for i in 0..new.ports.len() {
                    if new.ports[i].node_port != 0 {
                        continue;
                    }
                    let shared = of_port.get(&new.ports[i].port).copied().filter(|_| old.is_none());
                    let node_port = match shared {
                        Some(node_port) => node_port,
                        None => {
                            let port =
                                i64::from(self.ports.allocate_next(owner).map_err(|error| full(&error))?);
                            taken.ports.push(port);
                            port
                        }
                    };
                    new.ports[i].node_port = node_port;
                    of_port.insert(new.ports[i].port, node_port);
                }
            }
        }
        self.allocate_health_check_port(new, old, owner, taken)
    }

    fn allocate_health_check_port(
        &self,
        new: &mut ServiceSpec,
        old: Option<&ServiceSpec>,
        owner: &Owner,
        taken: &mut Taken,
    ) -> Result<(), Status> {
        let had_one = old.is_some_and(ServiceSpec::needs_health_check_node_port);
        if !new.needs_health_check_node_port() || had_one {
            return Ok(());
        }
        let wanted = new.health_check_node_port;
        if wanted == 0 {
            let port = self.ports.allocate_next(owner).map_err(|error| {
                Status::internal(format!("failed to allocate a HealthCheck NodePort 0: {error}"))
            })?;
            new.health_check_node_port = port.into();
        } else {
            self.ports.allocate(wanted, owner).map_err(|error| {
                Status::internal(format!(
                    "failed to allocate requested HealthCheck NodePort {wanted}: {error}"
                ))
            })?;
        }
        taken.ports.push(new.health_check_node_port);
        Ok(())
    }
}

/// Values that the server has given are kept where an update leaves them out, so that the same manifest may be
/// sent again. Upstream: `patchAllocatedValues`.
fn keep_allocated(new: &mut ServiceSpec, old: &ServiceSpec) {
    if !old.is_external_name() && !new.is_external_name() {
        if new.cluster_ip.is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if new.cluster_ips.is_empty() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if old.needs_node_ports() && new.needs_node_ports() {
        let in_both: Vec<i64> = old
            .node_ports()
            .filter(|p| new.node_ports().any(|n| n == *p))
            .collect();
        for port in &mut new.ports {
            if port.node_port == 0
                && let Some(before) = old.ports.iter().rfind(|p| p.name == port.name)
                && !in_both.contains(&before.node_port)
            {
                port.node_port = before.node_port;
            }
        }
    }
    if old.needs_health_check_node_port()
        && new.needs_health_check_node_port()
        && new.health_check_node_port == 0
    {
        new.health_check_node_port = old.health_check_node_port;
    }
}

fn owner_of(service: &Value) -> Owner {
    format!("{}/{}/{}", service.namespace(), service.name(), service.uid()).into()
}

fn without<T: PartialEq + Copy>(all: &[T], but: &[T]) -> Vec<T> {
    all.iter().filter(|item| !but.contains(item)).copied().collect()
}

fn is_service(request: &AdmissionRequest) -> bool {
    let attributes = request.attributes;
    attributes.api_group.is_empty()
        && attributes.resource == "services"
        && attributes.subresource.is_empty()
        && matches!(request.operation, Operation::Create | Operation::Update)
}

impl Admission for ServiceAllocator {
    fn admit(&self, request: &mut AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        if !is_service(request) {
            return Ok(());
        }
        let old = request.old;
        match request.object.as_deref_mut() {
            Some(service) => self.allocate(service, old),
            None => Ok(()),
        }
    }

    fn finish(&self, request: &AdmissionRequest, committed: bool) {
        if !is_service(request) {
            return;
        }
        let Some((service, new)) = request
            .object
            .as_deref()
            .and_then(|object| Some((object, ServiceSpec::read(object)?)))
        else {
            return;
        };
        let owner = owner_of(service);
        let old = request.old.and_then(ServiceSpec::read).unwrap_or_default();
        let (new_ips, old_ips) = (new.held_ips(), old.held_ips());
        let (new_ports, old_ports) = (new.held_ports(), old.held_ports());
        let added = without(&new_ips, &old_ips);
        let dropped = without(&old_ips, &new_ips);
        if committed {
            self.release(&dropped, &without(&old_ports, &new_ports), &owner);
            self.changes
                .send(added.iter().map(|ip| IpChange::allocated(*ip, service)));
            self.changes.send(dropped.into_iter().map(IpChange::Released));
        } else {
            self.release(&added, &without(&new_ports, &old_ports), &owner);
        }
    }

    fn removed(&self, resource: &GroupResource, old: &Value) {
        if !resource.group.is_empty() || resource.resource != "services" {
            return;
        }
        if let Some(spec) = ServiceSpec::read(old) {
            let ips = spec.held_ips();
            self.release(&ips, &spec.held_ports(), &owner_of(old));
            self.changes.send(ips.into_iter().map(IpChange::Released));
        }
    }
}

#[cfg(test)]
mod tests;
