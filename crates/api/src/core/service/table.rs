//! The table of Services. Upstream: `printService`.

use crate::access::Read;
use crate::table::{AGE, NAME, TableSpec, age, labels, or_none, text, wide};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) static TABLE: TableSpec = TableSpec {
    columns: &[
        NAME,
        text("Type"),
        text("Cluster-IP"),
        text("External-IP"),
        text("Port(s)"),
        AGE,
        wide("Selector"),
    ],
    cells,
};

fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = service.sub("spec");
    let cluster_ip = spec.texts("clusterIPs").first().copied().unwrap_or_default();
    vec![
        service.name().into(),
        spec.text("type").into(),
        or_none(cluster_ip),
        external_ip(service),
        or_none(&ports(spec)),
        age(service, now),
        labels(spec.sub("selector")),
    ]
}

fn external_ip(service: &Value) -> Value {
    let spec = service.sub("spec");
    let external_ips = spec.texts("externalIPs");
    match spec.text("type") {
        "ClusterIP" | "NodePort" => or_none(&external_ips.join(",")),
        "LoadBalancer" => {
            let mut addresses = load_balancer_addresses(service.sub("status").sub("loadBalancer"));
            addresses.extend(external_ips.into_iter().map(str::to_owned));
            if addresses.is_empty() {
                "<pending>".into()
            } else {
                addresses.join(",").into()
            }
        }
        "ExternalName" => spec.text("externalName").into(),
        _ => "<unknown>".into(),
    }
}

/// The addresses or else names of the points of entry, sorted and each once.
pub(crate) fn load_balancer_addresses(load_balancer: &Value) -> Vec<String> {
    let addresses: BTreeSet<&str> = load_balancer
        .list("ingress")
        .iter()
        .map(|ingress| match ingress.text("ip") {
            "" => ingress.text("hostname"),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.into_iter().map(str::to_owned).collect()
}

fn ports(spec: &Value) -> String {
    let ports: Vec<String> = spec
        .list("ports")
        .iter()
        .map(|port| {
            let number = port.int("port").unwrap_or_default();
            let protocol = port.text("protocol");
            match port.int("nodePort") {
                Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    ports.join(",")
}
