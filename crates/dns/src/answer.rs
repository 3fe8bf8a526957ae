//! Question in, answer out: pure. The Kubernetes DNS specification 1.1.0, with CoreDNS' choices where it is silent.

use crate::zone::{Endpoint, NamedPort, Target, Zone, undashed};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::IpAddr;

/// Seconds that a client may keep a record: upstream's deployment of CoreDNS says 30, but an endpoint that went
/// must not live on in a resolver, so the plugin's own default is used.
pub const TTL: u32 = 5;
/// The version that `dns-version.DOMAIN` tells.
const SCHEMA_VERSION: &str = "1.1.0";

/// What the cluster knows about a question.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// Records, and others that save the client a second question.
    Records(Vec<Record>, Vec<Record>),
    /// The name exists, a record of that type does not.
    NoData(Box<Record>),
    /// No such name.
    NameError(Box<Record>),
    /// Not a name of this cluster: ask elsewhere.
    NotOurs,
}

/// What a name of the zone resolves to, before the record type is looked at.
enum Found<'a> {
    Addresses(Vec<IpAddr>),
    Endpoints(Vec<&'a Endpoint>),
    Service(Vec<IpAddr>, &'a [NamedPort]),
    Srv(Vec<(String, u16, Vec<IpAddr>)>),
    Alias(&'a str),
    Text(&'static str),
    Empty,
}

/// Answers a question about `name`.
pub fn answer(zone: &Zone, name: &Name, record_type: RecordType) -> Answer {
    let labels = labels(name);
    if let Some(address) = reverse_address(&labels) {
        return reverse(zone, name, record_type, address);
    }
    let Some(inside) = labels.strip_suffix_of(zone.domain()) else {
        return Answer::NotOurs;
    };
    if inside.is_empty() && record_type == RecordType::SOA {
        return Answer::Records(vec![soa(zone)], Vec::new());
    }
    let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
    match find(zone, &inside) {
        Some(found) => records(zone, name, record_type, found),
        None => Answer::NameError(Box::new(soa(zone))),
    }
}

fn find<'a>(zone: &'a Zone, inside: &[&str]) -> Option<Found<'a>> {
    match inside {
        [] | ["svc"] | ["pod"] => Some(Found::Empty),
        ["dns-version"] => Some(Found::Text(SCHEMA_VERSION)),
        [namespace, "svc" | "pod"] => zone.has_namespace(namespace).then_some(Found::Empty),
        [address, _, "pod"] => undashed(address).map(|address| Found::Addresses(vec![address])),
        [service, namespace, "svc"] => Some(match zone.service(namespace, service)? {
            Target::Cluster(addresses, ports) => Found::Service(addresses.clone(), ports),
            // Upstream has no name for a headless Service without endpoints.
            Target::Headless(_) => Found::Endpoints(some(zone.endpoints(namespace, service))?),
            Target::External(name) => Found::Alias(name),
        }),
        [hostname, service, namespace, "svc"] if !hostname.starts_with('_') => {
            let mut endpoints = zone.endpoints(namespace, service);
            endpoints.retain(|e| e.hostname.eq_ignore_ascii_case(hostname));
            Some(Found::Addresses(
                some(endpoints)?.iter().map(|e| e.address).collect(),
            ))
        }
        [protocol, service, namespace, "svc"] => {
            srv(zone, namespace, service, |port| matches(&port.protocol, protocol)).map(|_| Found::Empty)
        }
        [port_name, protocol, service, namespace, "svc"] => srv(zone, namespace, service, |port| {
            matches(&port.name, port_name) && matches(&port.protocol, protocol)
        })
        .map(Found::Srv),
        _ => None,
    }
}

fn matches(name: &str, label: &str) -> bool {
    label
        .strip_prefix('_')
        .is_some_and(|label| label.eq_ignore_ascii_case(name))
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// Targets, ports and addresses of the SRV records of a Service's matching ports; absent if there is none.
fn srv(
    zone: &Zone,
    namespace: &str,
    service: &str,
    wanted: impl Fn(&NamedPort) -> bool,
) -> Option<Vec<(String, u16, Vec<IpAddr>)>> {
    let found: Vec<_> = match zone.service(namespace, service)? {
        Target::Cluster(addresses, ports) => ports
            .iter()
            .filter(|port| wanted(port))
            .map(|port| (format!("{service}.{namespace}.svc"), port.port, addresses.clone()))
            .collect(),
        Target::Headless(_) => zone
            .endpoints(namespace, service)
            .into_iter()
            .flat_map(|e| e.ports.iter().filter(|p| wanted(p)).map(move |p| (e, p)))
            .map(|(e, p)| {
                (
                    format!("{}.{service}.{namespace}.svc", e.hostname),
                    p.port,
                    vec![e.address],
                )
            })
            .collect(),
        Target::External(_) => Vec::new(),
    };
    some(found)
}

fn records(zone: &Zone, name: &Name, record_type: RecordType, found: Found) -> Answer {
    let record = |data: RData| Record::from_rdata(name.clone(), TTL, data);
    let mut additional = Vec::new();
    let answers: Vec<Record> = match (found, record_type) {
        (Found::Alias(target), _) => Name::from_ascii(target)
            .map(|mut target| {
                target.set_fqdn(true);
                vec![record(RData::CNAME(CNAME(target)))]
            })
            .unwrap_or_default(),
        (Found::Addresses(addresses) | Found::Service(addresses, _), RecordType::A | RecordType::AAAA) => {
            addresses
                .into_iter()
                .filter_map(|a| address_data(a, record_type))
                .map(record)
                .collect()
        }
        (Found::Endpoints(endpoints), RecordType::A | RecordType::AAAA) => endpoints
            .into_iter()
            .filter_map(|e| address_data(e.address, record_type))
            .map(record)
            .collect(),
        (Found::Service(addresses, ports), RecordType::SRV) => ports
            .iter()
            .map(|port| {
                additional.extend(address_records(name, &addresses));
                record(RData::SRV(SRV::new(0, 100, port.port, name.clone())))
            })
            .collect(),
        (Found::Srv(targets), RecordType::SRV) => {
            let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
            targets
                .into_iter()
                .filter_map(|(target, port, addresses)| {
                    let target = in_zone(zone, &target)?;
                    additional.extend(address_records(&target, &addresses));
                    Some(record(RData::SRV(SRV::new(0, weight, port, target))))
                })
                .collect()
        }
        (Found::Text(text), RecordType::TXT) => vec![record(RData::TXT(TXT::new(vec![text.to_owned()])))],
        _ => Vec::new(),
    };
    if answers.is_empty() {
        return Answer::NoData(Box::new(soa(zone)));
    }
    additional.dedup();
    Answer::Records(answers, additional)
}

fn address_data(address: IpAddr, record_type: RecordType) -> Option<RData> {
    match (address, record_type) {
        (IpAddr::V4(v4), RecordType::A) => Some(RData::A(A(v4))),
        (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(AAAA(v6))),
        _ => None,
    }
}

fn address_records(name: &Name, addresses: &[IpAddr]) -> Vec<Record> {
    let both = [RecordType::A, RecordType::AAAA];
    addresses
        .iter()
        .flat_map(|address| {
            both.iter()
                .filter_map(|record_type| address_data(*address, *record_type))
        })
        .map(|data| Record::from_rdata(name.clone(), TTL, data))
        .collect()
}

fn reverse(zone: &Zone, name: &Name, record_type: RecordType, address: IpAddr) -> Answer {
    let names = zone.names_of(address);
    if names.is_empty() {
        return Answer::NotOurs;
    }
    if record_type != RecordType::PTR {
        return Answer::NoData(Box::new(soa(zone)));
    }
    let records = names
        .into_iter()
        .filter_map(|(hostname, service, namespace)| {
            let prefix = hostname.map(|h| format!("{h}.")).unwrap_or_default();
            in_zone(zone, &format!("{prefix}{service}.{namespace}.svc"))
        })
        .map(|target| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target))))
        .collect();
    Answer::Records(records, Vec::new())
}

/// The record that tells a client how long it may believe a negative answer.
fn soa(zone: &Zone) -> Record {
    let domain = in_zone(zone, "").unwrap_or_else(Name::root);
    let server = in_zone(zone, "ns.dns").unwrap_or_else(Name::root);
    let mailbox = in_zone(zone, "hostmaster").unwrap_or_else(Name::root);
    let soa = SOA::new(server, mailbox, zone.serial(), 7200, 1800, 86400, TTL);
    Record::from_rdata(domain, TTL, RData::SOA(soa))
}

fn in_zone(zone: &Zone, prefix: &str) -> Option<Name> {
    let separator = if prefix.is_empty() { "" } else { "." };
    Name::from_ascii(format!("{prefix}{separator}{}.", zone.domain().join("."))).ok()
}

/// The labels of a name, in lower case.
struct Labels(Vec<String>);

fn labels(name: &Name) -> Labels {
    Labels(
        name.iter()
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect(),
    )
}

impl Labels {
    fn strip_suffix_of(&self, suffix: &[String]) -> Option<&[String]> {
        self.0.strip_suffix(suffix)
    }
}

/// The address asked about under `in-addr.arpa` or `ip6.arpa`.
fn reverse_address(labels: &Labels) -> Option<IpAddr> {
    match labels.0.as_slice() {
        [d, c, b, a, zone, arpa] if zone == "in-addr" && arpa == "arpa" => {
            format!("{a}.{b}.{c}.{d}").parse().ok().map(IpAddr::V4)
        }
        [nibbles @ .., zone, arpa] if zone == "ip6" && arpa == "arpa" && nibbles.len() == 32 => {
            let mut value: u128 = 0;
            for nibble in nibbles.iter().rev() {
                let digit = u128::from_str_radix(nibble, 16)
                    .ok()
                    .filter(|_| nibble.len() == 1)?;
                value = value << 4 | digit;
            }
            Some(IpAddr::V6(value.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
