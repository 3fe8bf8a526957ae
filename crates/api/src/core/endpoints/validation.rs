//! Validation of Endpoints. Upstream: `validateEndpointSubsets`.

use crate::access::Read;
use crate::at::{At, label, qualified_name, subdomain};
use crate::strategy::Errors;
use coracle_meta::{FieldError, names};
use serde_json::Value;
use std::net::IpAddr;

pub(super) fn check(endpoints: &Value, errors: &mut Errors) {
    let root = At::new(endpoints, coracle_meta::FieldPath::default());
    for subset in root.each("subsets") {
        if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
            let detail = "must specify `addresses` or `notReadyAddresses`";
            errors.push(subset.required(detail));
        }
        for list in ["addresses", "notReadyAddresses"] {
            for address in subset.each(list) {
                validate_address(&address, errors);
            }
        }
        let several = subset.list("ports").len() > 1;
        for port in subset.each("ports") {
            validate_port(&port, several, errors);
        }
    }
}

fn validate_address(address: &At<'_>, errors: &mut Errors) {
    let before = errors.len();
    address.child("ip").ip(errors);
    if errors.len() == before {
        validate_ip(&address.child("ip"), errors);
    }
    address.optional_form("hostname", label, errors);
    if let Some(node) = address.present("nodeName") {
        node.form(subdomain, errors);
    }
}

fn validate_port(port: &At<'_>, several: bool, errors: &mut Errors) {
    if several && port.text("name").is_empty() {
        errors.push(port.child("name").required(""));
    } else {
        port.optional_form("name", label, errors);
    }
    let number = port.int("port").unwrap_or_default();
    for reason in names::is_port_number(number) {
        errors.push(FieldError::invalid(&port.path.child("port"), number, &reason));
    }
    port.require_one_of("protocol", &["SCTP", "TCP", "UDP"], errors);
    if let Some(protocol) = port.present("appProtocol") {
        protocol.form(qualified_name, errors);
    }
}

/// An address that traffic may be sent to: no unspecified, loopback or link-local one, nor such a group.
pub(crate) fn validate_ip(ip: &At<'_>, errors: &mut Errors) {
    let Ok(address) = ip.as_text().parse::<IpAddr>() else {
        return;
    };
    let mut refuse = |is: bool, detail: &str| {
        if is {
            errors.push(ip.invalid(detail));
        }
    };
    refuse(
        address.is_unspecified(),
        &format!("may not be unspecified ({})", ip.as_text()),
    );
    refuse(
        address.is_loopback(),
        "may not be in the loopback range (127.0.0.0/8, ::1/128)",
    );
    let (link_local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    refuse(
        link_local,
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
    );
    refuse(
        multicast,
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
    );
}
