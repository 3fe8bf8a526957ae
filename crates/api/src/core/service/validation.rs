//! Validation of Services. Upstream: `validateService`, `ValidateServiceClusterIPsRelatedFields`.

use super::{is_externally_accessible, is_headless, needs_health_check_node_port};
use crate::access::Read;
use crate::at::{At, label, qualified_name, subdomain};
use crate::core::{endpoints, pod_spec};
use crate::object_meta;
use crate::strategy::Errors;
use coracle_meta::FieldError;
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const LOAD_BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const CLIENT_IP_TIMEOUT_MAX: i64 = 86_400;

pub(super) fn check(service: &Value, errors: &mut Errors) {
    let spec = At::top(service, "spec");
    let kind = spec.text("type");
    validate_topology_annotations(service, errors);
    let headless = is_headless(&spec);
    if spec.list("ports").is_empty() && !headless && kind != "ExternalName" {
        errors.push(spec.child("ports").required(""));
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let path = spec.path.child("clusterIPs").index(0);
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid(&path, "None", &detail));
    }
    if kind == "ExternalName" {
        validate_external_name(&spec, errors);
    }
    validate_ports(&spec, errors);
    object_meta::labels(&spec.child("selector"), errors);
    validate_affinity(&spec, errors);
    if kind != "ExternalName" {
        validate_cluster_ips(&spec, errors);
    }
    for ip in spec.each("externalIPs") {
        let before = errors.len();
        ip.ip(errors);
        if errors.len() == before {
            endpoints::validate_ip(&ip, errors);
        }
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    spec.require_one_of("type", &types, errors);
    validate_port_sets(&spec, errors);
    validate_source_ranges(service, &spec, errors);
    validate_load_balancer(&spec, errors);
    validate_traffic(&spec, errors);
}

fn validate_topology_annotations(service: &Value, errors: &mut Errors) {
    let annotations = At::top(service, "metadata").child("annotations");
    let (hints, mode) = (
        "service.kubernetes.io/topology-aware-hints",
        "service.kubernetes.io/topology-mode",
    );
    if annotations.has(hints) && annotations.has(mode) && annotations.text(hints) != annotations.text(mode) {
        let detail = format!("must match annotations[{hints}] when both are specified");
        let path = annotations.path.key(mode);
        errors.push(FieldError::invalid(&path, annotations.text(mode), &detail));
    }
}

fn validate_external_name(spec: &At<'_>, errors: &mut Errors) {
    let mut forbid = |key: &str, is_set: bool| {
        if is_set {
            let field = spec.child(key);
            errors.push(field.forbidden("may not be set for ExternalName services"));
        }
    };
    forbid("clusterIPs", !spec.list("clusterIPs").is_empty());
    forbid("ipFamilies", !spec.list("ipFamilies").is_empty());
    forbid("ipFamilyPolicy", spec.has("ipFamilyPolicy"));
    let name = spec.child("externalName");
    // A trailing dot makes a name absolute.
    let text = name.as_text();
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        errors.push(name.required(""));
    }
    for reason in (!text.is_empty()).then(|| subdomain(text)).into_iter().flatten() {
        errors.push(FieldError::invalid(&name.path, text, &reason));
    }
}

fn validate_ports(spec: &At<'_>, errors: &mut Errors) {
    let several = spec.list("ports").len() > 1;
    let mut seen = BTreeSet::new();
    for port in spec.each("ports") {
        let name = port.text("name");
        if name.is_empty() && several {
            errors.push(port.child("name").required(""));
        } else if !name.is_empty() {
            port.child("name").form(label, errors);
            if !seen.insert(name.to_owned()) {
                errors.push(port.child("name").duplicate());
            }
        }
        pod_spec::validate_port(&At::new(&number(&port, "port"), port.path.child("port")), errors);
        port.require_one_of("protocol", &["SCTP", "TCP", "UDP"], errors);
        pod_spec::validate_port(&port.child("targetPort"), errors);
        if let Some(protocol) = port.present("appProtocol") {
            protocol.form(qualified_name, errors);
        }
    }
}

/// The number in the field, 0 if absent.
fn number(holder: &At<'_>, key: &str) -> Value {
    holder.int(key).unwrap_or_default().into()
}

/// Pairs of protocol and port, and of protocol and node port, are each there once.
fn validate_port_sets(spec: &At<'_>, errors: &mut Errors) {
    let (mut node_ports, mut ports) = (BTreeSet::new(), BTreeSet::new());
    if spec.text("type") == "ClusterIP" {
        for port in spec.each("ports") {
            if port.int("nodePort").is_some_and(|number| number != 0) {
                let detail = "may not be used when `type` is 'ClusterIP'";
                errors.push(port.child("nodePort").forbidden(detail));
            }
        }
    }
    for port in spec.each("ports") {
        let number = port.int("nodePort").unwrap_or_default();
        let key = (port.text("protocol").to_owned(), number);
        if number != 0 && !node_ports.insert(key) {
            errors.push(port.child("nodePort").duplicate());
        }
    }
    for port in spec.each("ports") {
        let (protocol, number) = (port.text("protocol"), port.int("port").unwrap_or_default());
        if !ports.insert((protocol.to_owned(), number)) {
            let mut error = FieldError::duplicate(&port.path, "");
            // Upstream prints its internal type.
            error.body = format!(
                "Duplicate value: {{\"Name\":\"\",\"Protocol\":{protocol:?},\"AppProtocol\":null,\"Port\":{number},\
                 \"TargetPort\":0,\"NodePort\":0}}"
            );
            errors.push(error);
        }
    }
}

fn validate_affinity(spec: &At<'_>, errors: &mut Errors) {
    spec.require_one_of("sessionAffinity", &["ClientIP", "None"], errors);
    let config = spec.child("sessionAffinityConfig");
    match spec.text("sessionAffinity") {
        "ClientIP" => {
            let timeout = config.child("clientIP").child("timeoutSeconds");
            match timeout.as_i64() {
                None => errors.push(timeout.required("when session affinity type is ClientIP")),
                Some(seconds) if !(1..=CLIENT_IP_TIMEOUT_MAX).contains(&seconds) => {
                    let detail = format!("must be greater than 0 and less than {CLIENT_IP_TIMEOUT_MAX}");
                    errors.push(timeout.invalid(&detail));
                }
                Some(_) => {}
            }
        }
        "None" if !config.is_null() => {
            errors.push(config.forbidden("must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn validate_cluster_ips(spec: &At<'_>, errors: &mut Errors) {
    let list = spec.child("clusterIPs");
    let (single, all) = (spec.text("clusterIP"), spec.texts("clusterIPs"));
    match (single, all.first()) {
        ("", None) => {}
        ("", Some(_)) => errors.push(list.invalid("must be empty when `clusterIP` is not specified")),
        (_, None) => errors.push(list.required("")),
        (single, Some(first)) if *first != single => {
            errors.push(list.invalid("first value must match `clusterIP`"));
        }
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for family in spec.each("ipFamilies") {
        family.one_of(&["IPv4", "IPv6"], errors);
        if !seen.insert(family.as_text()) {
            errors.push(family.duplicate());
        }
    }
    if let Some(policy) = spec.present("ipFamilyPolicy") {
        policy.one_of(&["PreferDualStack", "RequireDualStack", "SingleStack"], errors);
    }
    let before = errors.len();
    for (index, ip) in spec.each("clusterIPs").enumerate() {
        if index > 0 || ip.as_text() != "None" {
            ip.ip(errors);
        } else if all.len() > 1 {
            errors.push(list.invalid("'None' must be the first and only value"));
        }
    }
    let are_valid = errors.len() == before;
    if all.len() > 2 {
        errors.push(list.invalid("may only hold up to 2 values"));
    }
    if !are_valid || is_headless(spec) {
        return;
    }
    let is_v6: Vec<bool> = all
        .iter()
        .map(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()))
        .collect();
    if all.len() > 1 && !(is_v6.contains(&true) && is_v6.contains(&false)) {
        errors.push(list.invalid("may specify no more than one IP for each IP family"));
    }
    for (index, family) in spec.texts("ipFamilies").into_iter().enumerate() {
        let Some(is_v6) = is_v6.get(index) else { break };
        if *is_v6 != (family == "IPv6") && matches!(family, "IPv4" | "IPv6") {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(&list.path.index(index), all[index], &detail));
        }
    }
}

fn validate_source_ranges(service: &Value, spec: &At<'_>, errors: &mut Errors) {
    let is_load_balancer = spec.text("type") == "LoadBalancer";
    let ranges = spec.texts("loadBalancerSourceRanges");
    if !ranges.is_empty() {
        let path = spec.path.child("LoadBalancerSourceRanges");
        if !is_load_balancer {
            errors.push(FieldError::forbidden(&path, LOAD_BALANCER_ONLY));
        }
        for (index, range) in ranges.into_iter().enumerate() {
            validate_cidr(&path.index(index), range.trim(), errors);
        }
        return;
    }
    let annotations = At::top(service, "metadata").child("annotations");
    if !annotations.has(SOURCE_RANGES) {
        return;
    }
    let path = annotations.path.key(SOURCE_RANGES);
    if !is_load_balancer {
        errors.push(FieldError::forbidden(&path, LOAD_BALANCER_ONLY));
    }
    let text = annotations.text(SOURCE_RANGES).trim();
    for range in text.split(',').filter(|_| !text.is_empty()) {
        validate_cidr(&path, range.trim(), errors);
    }
}

/// A network in CIDR notation, as fields older than the strict form take it.
pub(crate) fn validate_cidr(path: &coracle_meta::FieldPath, text: &str, errors: &mut Errors) {
    match text.parse::<IpNet>() {
        Ok(net) if net.addr() != net.network() => {
            let detail = "must not have bits set beyond the prefix length";
            errors.push(FieldError::invalid(path, text, detail));
        }
        Ok(_) => {}
        Err(_) => {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(FieldError::invalid(path, text, detail));
        }
    }
}

fn validate_load_balancer(spec: &At<'_>, errors: &mut Errors) {
    if spec.text("type") == "LoadBalancer" {
        spec.optional_form("loadBalancerClass", qualified_name, errors);
        return;
    }
    for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if let Some(field) = spec.present(key) {
            errors.push(field.forbidden(LOAD_BALANCER_ONLY));
        }
    }
}

fn validate_traffic(spec: &At<'_>, errors: &mut Errors) {
    let external = spec.child("externalTrafficPolicy");
    if is_externally_accessible(spec) {
        spec.require_one_of("externalTrafficPolicy", &["Cluster", "Local"], errors);
    } else if !external.as_text().is_empty() {
        errors.push(external.invalid("may only be set for externally-accessible services"));
    }
    let port = spec.child("healthCheckNodePort");
    if port.as_i64().is_some_and(|number| number != 0) {
        if needs_health_check_node_port(spec) {
            spec.range("healthCheckNodePort", 1, 65535, errors);
        } else {
            let detail =
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(port.invalid(detail));
        }
    }
    let internal = spec.child("internalTrafficPolicy");
    if internal.is_null() {
        if spec.text("type") != "ExternalName" {
            errors.push(internal.required(""));
        }
    } else {
        internal.one_of(&["Cluster", "Local"], errors);
    }
    if let Some(distribution) = spec.present("trafficDistribution") {
        let allowed = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        distribution.one_of(&allowed, errors);
    }
}

pub(super) fn check_update(service: &Value, old: &Value, errors: &mut Errors) {
    let spec = At::top(service, "spec");
    let old = old.sub("spec");
    let (is_external, was_external) = (
        spec.text("type") == "ExternalName",
        old.text("type") == "ExternalName",
    );
    let (headless, was_headless) = (is_headless(&spec), is_headless(old));
    if !is_external && !was_external {
        if !headless || !was_headless {
            may_not_change(&spec, old, "clusterIPs", "clusterIP", errors);
        }
        if !headless && !was_headless {
            may_not_change(&spec, old, "ipFamilies", "ipFamily", errors);
        }
    }
    let both_load_balancers = spec.text("type") == "LoadBalancer" && old.text("type") == "LoadBalancer";
    if both_load_balancers && spec.sub("loadBalancerClass") != old.sub("loadBalancerClass") {
        let class = spec.child("loadBalancerClass");
        errors.push(class.invalid("may not change once set"));
    }
    let had_health_check = needs_health_check_node_port(old) && needs_health_check_node_port(&spec);
    if had_health_check && spec.int("healthCheckNodePort") != old.int("healthCheckNodePort") {
        let port = spec.child("healthCheckNodePort");
        errors.push(port.forbidden("field is immutable"));
    }
    check(service, errors);
}

/// The first address or family stays; a second may come, and go with a word that it shall.
fn may_not_change(spec: &At<'_>, old: &Value, list: &str, one: &str, errors: &mut Errors) {
    let field = spec.child(list);
    let (new, old) = (spec.texts(list), old.texts(list));
    let invalid = |index: usize, detail: &str| {
        let value = Value::from(new.iter().map(|text| Value::from(*text)).collect::<Vec<_>>());
        FieldError::invalid(&field.path.index(index), value, detail)
    };
    if old.len() == new.len() {
        for (index, (old, new)) in old.iter().zip(&new).enumerate() {
            if old != new {
                let index = if list == "clusterIPs" { index } else { 0 };
                errors.push(invalid(index, "may not change once set"));
            }
        }
        return;
    }
    if new.is_empty() {
        errors.push(invalid(0, &format!("primary {one} can not be unset")));
    } else if !old.is_empty() && old[0] != new[0] {
        errors.push(invalid(0, "may not change once set"));
    }
    if old.len() > new.len() && new.len() == 1 && spec.text("ipFamilyPolicy") != "SingleStack" {
        let policy = spec.child("ipFamilyPolicy");
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
        errors.push(policy.invalid(&detail));
    }
}

pub(super) fn check_status_update(service: &Value, _old: &Value, errors: &mut Errors) {
    let balancer = At::top(service, "status").child("loadBalancer");
    if service.sub("spec").text("type") != "LoadBalancer" && !balancer.list("ingress").is_empty() {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        errors.push(balancer.child("ingress").forbidden(detail));
        return;
    }
    for ingress in balancer.each("ingress") {
        let has_ip = !ingress.text("ip").is_empty();
        if has_ip {
            ingress.child("ip").ip(errors);
        }
        let mode = ingress.child("ipMode");
        match (mode.is_null(), has_ip) {
            (true, true) => errors.push(mode.required("must be specified when `ip` is set")),
            (false, false) => errors.push(mode.forbidden("may not be specified when `ip` is not set")),
            (false, true) => mode.one_of(&["Proxy", "VIP"], errors),
            (true, false) => {}
        }
        validate_hostname(&ingress, errors);
    }
}

/// The name of a point of entry: a name and no address.
pub(crate) fn validate_hostname(ingress: &At<'_>, errors: &mut Errors) {
    let hostname = ingress.child("hostname");
    if hostname.as_text().is_empty() {
        return;
    }
    hostname.form(subdomain, errors);
    if hostname.as_text().parse::<IpAddr>().is_ok() {
        errors.push(hostname.invalid("must be a DNS name, not an IP address"));
    }
}
