//! What the cluster knows about a name: pure. The Kubernetes DNS specification 1.1.0, with CoreDNS' choices where it
//! is silent.

use crate::name::{Name, labels, put_label};
use crate::query::Question;
use crate::record_type::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use crate::reply::{Full, Owner, Reply, Section};
use crate::zone::{Endpoint, Port, Target, Zone, undashed};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::LazyLock;

/// Seconds that a client may keep a record: upstream's deployment of CoreDNS says 30, but an endpoint that went
/// must not live on in a resolver, so the plugin's own default is used.
pub const TTL: u32 = 5;
/// The version that `dns-version.DOMAIN` tells, and how long that holds.
const SCHEMA_VERSION: &[u8] = b"1.1.0";
const SCHEMA_VERSION_TTL: u32 = 28_800;
/// `_PORT._PROTOCOL.SERVICE.NAMESPACE.svc`
const MOST_LABELS: usize = 5;
/// `SERVICE.NAMESPACE.svc`
const SERVICE_LABELS: usize = 3;
/// Names below the domain, as they stand in messages.
const NAME_SERVER: &[u8] = b"\x02ns\x03dns";
const MAILBOX: &[u8] = b"\x0ahostmaster";

/// What the cluster knows about a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Records, which are in the reply now.
    Records,
    /// The name exists, a record of that type does not.
    NoData,
    /// No such name.
    NameError,
    /// Another name for the same. The record is in the reply, which is about that name now.
    Alias(Name),
    /// Not a name of this cluster: ask elsewhere.
    NotOurs,
}

/// What a name of the zone stands for, before the record type is looked at.
enum Found<'a> {
    Cluster(&'a [IpAddr], &'a [Port]),
    Endpoints(Vec<(&'a Endpoint, &'a [Port])>),
    /// The same, for the one port that `_PORT._PROTOCOL` in front of it names: it has SRV records only.
    ClusterPort(&'a [IpAddr], &'a [Port], Wanted<'a>),
    EndpointsPort(Vec<(&'a Endpoint, &'a [Port])>, Wanted<'a>),
    Addresses(&'a [IpAddr]),
    PodAddress(IpAddr),
    Alias(Name),
    Version,
    Apex,
    /// Only names below it.
    Empty,
}

/// Name and protocol of a port, as labels.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    name: &'a str,
    protocol: &'a str,
}

/// Writes what is known about a question. `rotation` decides which of several endpoints is named first.
pub(crate) fn answer(zone: &Zone, question: &Question, rotation: u16, reply: &mut Reply) -> Answer {
    let Some(inside) = question.name.before(zone.domain()) else {
        return reverse(zone, question, reply);
    };
    let (mut split, mut count) = ([""; MOST_LABELS], 0);
    for label in labels(inside) {
        let (Some(place), Ok(label)) = (split.get_mut(count), std::str::from_utf8(label)) else {
            return Answer::NameError;
        };
        *place = label;
        count += 1;
    }
    let Some(found) = find(zone, &split[..count]) else {
        return Answer::NameError;
    };
    let mut writer = Writer {
        zone,
        question,
        rotation,
        reply,
        records: 0,
    };
    match writer.write(found) {
        Ok(Some(target)) => Answer::Alias(target),
        Ok(None) if writer.records == 0 => Answer::NoData,
        // What did not fit is told by the truncation flag.
        Ok(None) | Err(Full) => Answer::Records,
    }
}

fn find<'a>(zone: &'a Zone, labels: &[&'a str]) -> Option<Found<'a>> {
    match *labels {
        [] => Some(Found::Apex),
        ["svc" | "pod" | "dns"] => Some(Found::Empty),
        ["dns-version"] => Some(Found::Version),
        ["ns", "dns"] => Some(Found::Addresses(zone.name_servers())),
        [namespace, "svc" | "pod"] => zone.has_namespace(namespace).then_some(Found::Empty),
        [address, namespace, "pod"] => undashed(address)
            .filter(|_| zone.has_namespace(namespace))
            .map(Found::PodAddress),
        [service, namespace, "svc"] => find_service(zone, namespace, service),
        [protocol, service, namespace, "svc"] if protocol.starts_with('_') => {
            find_port(zone, namespace, service, |port| is_protocol(port, protocol)).map(|_| Found::Empty)
        }
        [hostname, service, namespace, "svc"] => {
            let address = undashed(hostname);
            endpoints(zone, namespace, service, |endpoint, _| {
                endpoint.is_called(hostname, address)
            })
        }
        [name, protocol, service, namespace, "svc"] => {
            let wanted = Wanted { name, protocol };
            match find_port(zone, namespace, service, |port| wanted.is(port))? {
                Found::Cluster(addresses, ports) => Some(Found::ClusterPort(addresses, ports, wanted)),
                Found::Endpoints(endpoints) => Some(Found::EndpointsPort(endpoints, wanted)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn find_service<'a>(zone: &'a Zone, namespace: &str, service: &str) -> Option<Found<'a>> {
    match zone.service(namespace, service)? {
        Target::Cluster { addresses, ports, .. } => Some(Found::Cluster(addresses, ports)),
        // The specification: no ready endpoints, no such name.
        Target::Headless { .. } => endpoints(zone, namespace, service, |_, _| true),
        // An address is no name, even where one is asked for.
        Target::External(name) if name.parse::<IpAddr>().is_ok() => None,
        Target::External(name) => Name::parse(name).ok().map(Found::Alias),
    }
}

/// The Service, or its endpoints, if there is such a port.
fn find_port<'a>(
    zone: &'a Zone,
    namespace: &str,
    service: &str,
    wanted: impl Fn(&Port) -> bool,
) -> Option<Found<'a>> {
    match zone.service(namespace, service)? {
        Target::Cluster { addresses, ports, .. } => ports
            .iter()
            .any(wanted)
            .then_some(Found::Cluster(addresses, ports)),
        Target::Headless { .. } => endpoints(zone, namespace, service, |_, ports| ports.iter().any(&wanted)),
        Target::External(_) => None,
    }
}

fn endpoints<'a>(
    zone: &'a Zone,
    namespace: &str,
    service: &str,
    wanted: impl Fn(&Endpoint, &[Port]) -> bool,
) -> Option<Found<'a>> {
    let all = zone.endpoints(namespace, service);
    let found: Vec<_> = all.filter(|(endpoint, ports)| wanted(endpoint, ports)).collect();
    (!found.is_empty()).then_some(Found::Endpoints(found))
}

/// A port without a name has no record of its own.
fn is_protocol(port: &Port, label: &str) -> bool {
    !port.name.is_empty() && label.strip_prefix('_') == Some(port.protocol)
}

impl Wanted<'_> {
    fn is(&self, port: &Port) -> bool {
        is_protocol(port, self.protocol) && self.name.strip_prefix('_') == Some(&port.name)
    }
}

struct Writer<'a, 'r, 'o> {
    zone: &'a Zone,
    question: &'a Question,
    rotation: u16,
    reply: &'r mut Reply<'o>,
    records: usize,
}

impl Writer<'_, '_, '_> {
    /// Writes the records of the type in question. Returns what an alias stands for.
    fn write(&mut self, found: Found) -> Result<Option<Name>, Full> {
        match (found, self.question.record_type) {
            (Found::Alias(target), _) => {
                let put = |out: &mut Vec<u8>| out.extend_from_slice(target.as_bytes());
                self.reply.name_at = self
                    .reply
                    .record(Section::Answer, Owner::Current, CNAME, TTL, put)?;
                return Ok(Some(target));
            }
            (Found::Cluster(addresses, _) | Found::Addresses(addresses), A | AAAA) => {
                for address in addresses {
                    self.address(*address)?;
                }
            }
            (Found::PodAddress(address), A | AAAA) => self.address(address)?,
            (Found::Endpoints(endpoints), A | AAAA) => {
                let mut addresses: Vec<IpAddr> = endpoints.iter().map(|(e, _)| e.address).collect();
                addresses.sort_unstable();
                addresses.dedup();
                self.rotate(&mut addresses);
                for address in addresses {
                    self.address(address)?;
                }
            }
            (Found::Cluster(addresses, ports), SRV) => self.service_srv(addresses, ports, |_| true)?,
            (Found::ClusterPort(addresses, ports, wanted), SRV) => {
                self.service_srv(addresses, ports, |port| wanted.is(port))?;
            }
            (Found::Endpoints(endpoints), SRV) => self.endpoint_srv(endpoints, |_| true)?,
            (Found::EndpointsPort(endpoints, wanted), SRV) => {
                self.endpoint_srv(endpoints, |port| wanted.is(port))?;
            }
            (Found::Version, TXT) => {
                self.put(TXT, SCHEMA_VERSION_TTL, |out| {
                    out.push(SCHEMA_VERSION.len() as u8);
                    out.extend_from_slice(SCHEMA_VERSION);
                })?;
            }
            (Found::Apex, SOA) => {
                soa(self.zone, &self.question.name, Section::Answer, self.reply)?;
                self.records += 1;
            }
            (Found::Apex, NS) => {
                let domain = self.zone.domain();
                self.put(NS, TTL, |out| put_below(out, NAME_SERVER, domain))?;
            }
            _ => {}
        }
        Ok(None)
    }

    fn put(&mut self, record_type: u16, ttl: u32, data: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        self.reply
            .record(Section::Answer, Owner::Current, record_type, ttl, data)?;
        self.records += 1;
        Ok(())
    }

    /// An address, if it is of the family in question.
    fn address(&mut self, address: IpAddr) -> Result<(), Full> {
        if address.is_ipv4() != (self.question.record_type == A) {
            return Ok(());
        }
        put_address(self.reply, Section::Answer, Owner::Current, address)?;
        self.records += 1;
        Ok(())
    }

    /// Clients take the first that works: not all the same one.
    fn rotate<T>(&self, list: &mut [T]) {
        if !list.is_empty() {
            list.rotate_left(usize::from(self.rotation) % list.len());
        }
    }

    /// All ports lead to the Service's name.
    fn service_srv(
        &mut self,
        addresses: &[IpAddr],
        ports: &[Port],
        wanted: impl Fn(&Port) -> bool,
    ) -> Result<(), Full> {
        let ports: Vec<&Port> = ports.iter().filter(|port| wanted(port)).collect();
        let service_at = self.service_at();
        for port in &ports {
            let target = &self.question.name.as_bytes()[service_at..];
            self.put(SRV, TTL, |out| {
                put_srv(out, ports.len(), port.number);
                out.extend_from_slice(target);
            })?;
        }
        for address in addresses.iter().filter(|_| !ports.is_empty()) {
            put_address(
                self.reply,
                Section::Additional,
                Owner::Suffix(service_at),
                *address,
            )?;
        }
        Ok(())
    }

    /// Each port of each endpoint leads to the endpoint's name; several endpoints may share one.
    fn endpoint_srv(
        &mut self,
        endpoints: Vec<(&Endpoint, &[Port])>,
        wanted: impl Fn(&Port) -> bool,
    ) -> Result<(), Full> {
        let (mut targets, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for (endpoint, ports) in endpoints {
            for port in ports.iter().filter(|port| wanted(port)) {
                targets.insert((endpoint.label(), port.number));
                addresses.insert((endpoint.label(), endpoint.address));
            }
        }
        let service_at = self.service_at();
        let mut targets: Vec<_> = targets.into_iter().collect();
        self.rotate(&mut targets);
        for (label, port) in &targets {
            let service = &self.question.name.as_bytes()[service_at..];
            self.put(SRV, TTL, |out| {
                put_srv(out, targets.len(), *port);
                out.push(label.len() as u8);
                out.extend_from_slice(label.as_bytes());
                out.extend_from_slice(service);
            })?;
        }
        for (label, address) in addresses {
            put_address(
                self.reply,
                Section::Additional,
                Owner::Below(&label, service_at),
                address,
            )?;
        }
        Ok(())
    }

    /// Where the Service's own name begins in the question's.
    fn service_at(&self) -> usize {
        let labels_in_front = self.question.name.label_starts().count()
            - self.zone.domain().label_starts().count()
            - SERVICE_LABELS;
        self.question
            .name
            .label_starts()
            .nth(labels_in_front)
            .unwrap_or(0)
    }
}

fn put_srv(out: &mut Vec<u8>, records: usize, port: u16) {
    let weight = u16::try_from(100 / records.max(1)).unwrap_or(1).max(1);
    for word in [0, weight, port] {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

fn put_address(reply: &mut Reply, section: Section, owner: Owner, address: IpAddr) -> Result<(), Full> {
    let mut put = |record_type, octets: &[u8]| {
        reply
            .record(section, owner, record_type, TTL, |out| {
                out.extend_from_slice(octets)
            })
            .map(drop)
    };
    match address {
        IpAddr::V4(v4) => put(A, &v4.octets()),
        IpAddr::V6(v6) => put(AAAA, &v6.octets()),
    }
}

/// A name below the domain, from labels with their lengths.
fn put_below(out: &mut Vec<u8>, labels: &[u8], domain: &Name) {
    out.extend_from_slice(labels);
    out.extend_from_slice(domain.as_bytes());
}

/// The record that tells a client how long it may believe a negative answer. `name` is the one at
/// [`Reply::name_at`].
pub(crate) fn soa(zone: &Zone, name: &Name, section: Section, reply: &mut Reply) -> Result<(), Full> {
    let domain = zone.domain();
    let owner = name
        .before(domain)
        .map_or(Owner::Name(domain), |front| Owner::Suffix(front.len()));
    let put = |out: &mut Vec<u8>| {
        put_below(out, NAME_SERVER, domain);
        put_below(out, MAILBOX, domain);
        for number in [zone.serial(), 7200, 1800, 86_400, TTL] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    };
    reply.record(section, owner, SOA, TTL, put).map(drop)
}

fn reverse(zone: &Zone, question: &Question, reply: &mut Reply) -> Answer {
    let owners = reverse_address(&question.name)
        .map(|address| zone.owners(address))
        .unwrap_or_default();
    if owners.is_empty() {
        return Answer::NotOurs;
    }
    if question.record_type != PTR {
        return Answer::NoData;
    }
    for owner in owners {
        let label = owner.endpoint.map(Endpoint::label);
        let labels = label
            .as_deref()
            .into_iter()
            .chain([owner.service, owner.namespace, "svc"]);
        let mut target = Vec::new();
        // Names of objects are labels; if one is not, its record is left out.
        if labels
            .map(|label| put_label(&mut target, label.as_bytes()))
            .all(|put| put.is_some())
            && reply
                .record(Section::Answer, Owner::Current, PTR, TTL, |out| {
                    put_below(out, &target, zone.domain())
                })
                .is_err()
        {
            break;
        }
    }
    Answer::Records
}

/// The address asked about under `in-addr.arpa` or `ip6.arpa`.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    static IN_ADDR: LazyLock<Option<Name>> = LazyLock::new(|| Name::parse("in-addr.arpa").ok());
    static IP6: LazyLock<Option<Name>> = LazyLock::new(|| Name::parse("ip6.arpa").ok());
    let number = |label: &[u8], radix| {
        let text = std::str::from_utf8(label)
            .ok()
            .filter(|text| !text.starts_with('+'))?;
        u8::from_str_radix(text, radix).ok()
    };
    if let Some(front) = IN_ADDR.as_ref().and_then(|zone| name.before(zone)) {
        let mut octets = [0; 4];
        let mut labels = labels(front);
        for octet in octets.iter_mut().rev() {
            *octet = number(labels.next()?, 10)?;
        }
        return labels.next().is_none().then_some(octets.into());
    }
    let front = IP6.as_ref().and_then(|zone| name.before(zone))?;
    let mut octets = [0; 16];
    let mut labels = labels(front);
    for octet in octets.iter_mut().rev() {
        let (low, high) = (labels.next()?, labels.next()?);
        if low.len() != 1 || high.len() != 1 {
            return None;
        }
        *octet = number(high, 16)? << 4 | number(low, 16)?;
    }
    labels.next().is_none().then_some(octets.into())
}

#[cfg(test)]
mod tests;
