//! Advice about Services: what is deprecated, what has no effect. Upstream: `pkg/api/service/warnings.go`.

use super::is_headless;
use crate::access::Read;
use crate::at::At;
use crate::warnings::{cidr, ip};
use coracle_meta::balancing::{BALANCING, BALANCINGS};
use serde_json::Value;

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

pub(super) fn warnings(service: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let spec = At::top(service, "spec");
    if service.sub("metadata").sub("annotations").has(TOPOLOGY_HINTS) {
        warnings.push(format!(
            "annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"
        ));
    }
    let annotations = service.sub("metadata").sub("annotations");
    let balancing = annotations.text(BALANCING);
    if annotations.has(BALANCING) && !BALANCINGS.contains(&balancing) {
        warnings.push(format!(
            "metadata.annotations[{BALANCING}]: {balancing:?} is not known, endpoints are chosen at random; known \
             are {}",
            BALANCINGS.join(", ")
        ));
    }
    for address in spec.each("clusterIPs") {
        ip(&address, &mut warnings);
    }
    let kind = spec.text("type");
    let headless = kind == "ClusterIP" && is_headless(&spec);
    let external_ips = !spec.list("externalIPs").is_empty();
    let ignored = [
        ("loadBalancerIP", !spec.text("loadBalancerIP").is_empty()),
        ("externalIPs", external_ips),
        ("SessionAffinity", spec.text("sessionAffinity") != "None"),
    ];
    for (field, is_set) in ignored {
        if headless && is_set {
            warnings.push(format!("spec.{field} is ignored for headless services"));
        }
    }
    for address in spec.each("externalIPs") {
        ip(&address, &mut warnings);
    }
    if external_ips && !headless && kind != "ExternalName" {
        warnings.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    ip(&spec.child("loadBalancerIP"), &mut warnings);
    for range in spec.each("loadBalancerSourceRanges") {
        cidr(&range, &mut warnings);
    }
    let is_name = kind == "ExternalName";
    if is_name && external_ips {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is_name && !spec.text("externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        warnings.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
    warnings
}
