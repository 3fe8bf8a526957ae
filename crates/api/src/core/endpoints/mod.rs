//! Endpoints, deprecated in favour of EndpointSlice. Upstream: `pkg/apis/core`, `pkg/registry/core/endpoint`.

mod validation;

pub(crate) use validation::validate_ip;

use crate::access::{Read, Write};
use crate::at::At;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, at_most, or_none, text};
use crate::warnings::ip;
use coracle_meta::FieldPath;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;

/// Which controller keeps the object.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Endpoints"), AGE],
        cells,
    },
    default,
    check: validation::check,
    warnings,
    request_warning: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    ..Kind::new(Facts {
        create_on_update: true,
        ..Facts::NAMESPACED_DATA
    })
};

fn default(endpoints: &mut Value) {
    for subset in endpoints.items("subsets") {
        for port in subset.items("ports") {
            port.fill_text("protocol", "TCP");
        }
    }
}

/// The controller writes canonical addresses whatever it reads.
fn warnings(endpoints: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let by = endpoints.sub("metadata").sub("labels").text(MANAGED_BY);
    if by == "endpoint-controller" {
        return warnings;
    }
    for subset in At::new(endpoints, FieldPath::default()).each("subsets") {
        for address in ["addresses", "notReadyAddresses"]
            .iter()
            .flat_map(|list| subset.each(list))
        {
            ip(&address.child("ip"), &mut warnings);
        }
    }
    warnings
}

fn cells(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    let subsets = endpoints.list("subsets");
    let mut addresses = Vec::new();
    for subset in subsets {
        let ips = || subset.list("addresses").iter().map(|address| address.text("ip"));
        // A headless service may have no ports.
        if subset.list("ports").is_empty() {
            addresses.extend(ips().map(str::to_owned));
        }
        for port in subset.list("ports") {
            let port = port.int("port").unwrap_or_default();
            addresses.extend(ips().map(|ip| host_port(ip, port)));
        }
    }
    let shown = if subsets.is_empty() {
        or_none("")
    } else {
        at_most(&addresses, 3).into()
    };
    vec![endpoints.name().into(), shown, age(endpoints, now)]
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}
