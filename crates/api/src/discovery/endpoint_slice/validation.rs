//! Validation of EndpointSlices. Upstream: `pkg/apis/discovery/validation`.

use crate::access::Read;
use crate::at::{At, label, qualified_name, subdomain};
use crate::core::endpoints;
use crate::object_meta;
use crate::strategy::Errors;
use coracle_meta::{FieldError, FieldPath, names};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const ENDPOINTS_MAX: usize = 1000;
const HINTS_MAX: usize = 8;
const TOPOLOGY_MAX: usize = 16;

pub(super) fn check(slice: &Value, errors: &mut Errors) {
    let root = At::new(slice, FieldPath::default());
    let kinds = ["FQDN", "IPv4", "IPv6"];
    root.require_one_of("addressType", &kinds, errors);
    validate_ports(&root, errors);
    let endpoints = root.list("endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        let path = root.path.child("endpoints");
        errors.push(FieldError::too_many(&path, endpoints.len(), ENDPOINTS_MAX));
        return;
    }
    for endpoint in root.each("endpoints") {
        validate_endpoint(&endpoint, root.text("addressType"), errors);
    }
}

pub(super) fn check_update(slice: &Value, old: &Value, errors: &mut Errors) {
    check(slice, errors);
    At::new(slice, FieldPath::default()).immutable("addressType", old, errors);
}

fn validate_ports(root: &At<'_>, errors: &mut Errors) {
    let count = root.list("ports").len();
    if count > PORTS_MAX {
        errors.push(FieldError::too_many(&root.path.child("ports"), count, PORTS_MAX));
        return;
    }
    let mut seen = BTreeSet::new();
    for port in root.each("ports") {
        port.optional_form("name", label, errors);
        if !seen.insert(port.text("name").to_owned()) {
            errors.push(port.child("name").duplicate());
        }
        port.require_one_of("protocol", &["SCTP", "TCP", "UDP"], errors);
        if let Some(protocol) = port.present("appProtocol") {
            protocol.form(qualified_name, errors);
        }
    }
}

fn validate_endpoint(endpoint: &At<'_>, kind: &str, errors: &mut Errors) {
    let addresses = endpoint.child("addresses");
    match endpoint.list("addresses").len() {
        0 => errors.push(addresses.required("must contain at least 1 address")),
        count if count > ADDRESSES_MAX => {
            errors.push(FieldError::too_many(&addresses.path, count, ADDRESSES_MAX));
        }
        _ => {}
    }
    for address in endpoint.each("addresses") {
        validate_address(&address, &addresses.path, kind, errors);
    }
    if let Some(node) = endpoint.present("nodeName") {
        node.form(subdomain, errors);
    }
    let topology = endpoint.child("deprecatedTopology");
    let count = endpoint.size("deprecatedTopology");
    if count > TOPOLOGY_MAX {
        errors.push(FieldError::too_many(&topology.path, count, TOPOLOGY_MAX));
    }
    object_meta::labels(&topology, errors);
    if let Some(hostname) = endpoint.present("hostname") {
        hostname.form(label, errors);
    }
    let hints = endpoint.child("hints");
    validate_hints(&hints, "forZones", names::is_label_value, errors);
    validate_hints(&hints, "forNodes", subdomain, errors);
}

fn validate_address(address: &At<'_>, list: &FieldPath, kind: &str, errors: &mut Errors) {
    let text = address.as_text();
    if kind == "FQDN" {
        for reason in subdomain(text.strip_suffix('.').unwrap_or(text)) {
            errors.push(address.invalid(&reason));
        }
        if !text.trim_end_matches('.').contains('.') {
            errors.push(address.invalid("should be a domain with at least two segments separated by dots"));
        }
        return;
    }
    let before = errors.len();
    address.ip(errors);
    if errors.len() > before {
        return;
    }
    let is_v6 = text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    if matches!(kind, "IPv4" | "IPv6") && is_v6 != (kind == "IPv6") {
        let detail = format!("must be an {kind} address");
        errors.push(FieldError::invalid(list, text, &detail));
    }
    endpoints::validate_ip(address, errors);
}

fn validate_hints(hints: &At<'_>, list: &str, form: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let count = hints.list(list).len();
    if count > HINTS_MAX {
        errors.push(FieldError::too_many(&hints.path.child(list), count, HINTS_MAX));
        return;
    }
    let mut seen = BTreeSet::new();
    for hint in hints.each(list) {
        if !seen.insert(hint.text("name").to_owned()) {
            errors.push(hint.child("name").duplicate());
        }
        hint.child("name").form(form, errors);
    }
}
