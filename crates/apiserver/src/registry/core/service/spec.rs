//! The fields of a Service that allocation reads and writes.

use super::ip_allocator::IpFamily;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// `clusterIP` of a headless Service.
pub const NONE: &str = "None";

/// A view of `spec`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    pub ip_families: Vec<String>,
    pub ip_family_policy: String,
    pub ports: Vec<ServicePort>,
    pub selector: Map<String, Value>,
    pub allocate_load_balancer_node_ports: Option<bool>,
    pub external_traffic_policy: String,
    pub health_check_node_port: i64,
}

/// A view of one of `spec.ports`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    pub name: String,
    pub port: i64,
    pub node_port: i64,
}

impl ServiceSpec {
    /// `None` when a field has the wrong type: validation will say so.
    pub fn read(service: &Value) -> Option<Self> {
        let mut spec = Self::deserialize(service.get("spec")?).ok()?;
        if spec.kind.is_empty() {
            spec.kind = "ClusterIP".to_owned();
        }
        Some(spec)
    }

    /// Puts the allocated fields into the Service.
    pub fn write(&self, service: &mut Value) {
        let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else {
            return;
        };
        let mut set = |key: &str, value: Value, empty: bool| {
            if empty {
                spec.remove(key);
            } else {
                spec.insert(key.to_owned(), value);
            }
        };
        set(
            "clusterIP",
            self.cluster_ip.clone().into(),
            self.cluster_ip.is_empty(),
        );
        set(
            "clusterIPs",
            self.cluster_ips.clone().into(),
            self.cluster_ips.is_empty(),
        );
        set(
            "ipFamilies",
            self.ip_families.clone().into(),
            self.ip_families.is_empty(),
        );
        set(
            "ipFamilyPolicy",
            self.ip_family_policy.clone().into(),
            self.ip_family_policy.is_empty(),
        );
        let health = self.health_check_node_port;
        set("healthCheckNodePort", health.into(), health == 0);
        let ports = spec
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten();
        for (port, view) in ports.zip(&self.ports) {
            if view.node_port != 0 {
                port["nodePort"] = view.node_port.into();
            }
        }
    }

    pub fn is_external_name(&self) -> bool {
        self.kind == "ExternalName"
    }

    pub fn is_headless(&self) -> bool {
        self.cluster_ips.first().is_some_and(|ip| ip == NONE)
    }

    pub fn is_headless_without_selector(&self) -> bool {
        self.cluster_ip == NONE && self.selector.is_empty()
    }

    pub fn may_have_node_ports(&self) -> bool {
        matches!(self.kind.as_str(), "NodePort" | "LoadBalancer")
    }

    /// Whether ports without a node port are given one.
    pub fn needs_node_ports(&self) -> bool {
        match self.kind.as_str() {
            "NodePort" => true,
            "LoadBalancer" => self.allocate_load_balancer_node_ports.unwrap_or(true),
            _ => false,
        }
    }

    pub fn needs_health_check_node_port(&self) -> bool {
        self.kind == "LoadBalancer" && self.external_traffic_policy == "Local"
    }

    /// The node ports in `ports`.
    pub fn node_ports(&self) -> impl Iterator<Item = i64> {
        self.ports.iter().map(|p| p.node_port).filter(|p| *p != 0)
    }

    /// The addresses that this Service holds once it is stored.
    pub fn held_ips(&self) -> Vec<IpAddr> {
        if self.is_external_name() || self.is_headless() {
            return Vec::new();
        }
        self.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect()
    }

    /// The node ports that this Service holds once it is stored.
    pub fn held_ports(&self) -> Vec<i64> {
        if !self.may_have_node_ports() {
            return Vec::new();
        }
        let mut ports: Vec<i64> = self.node_ports().collect();
        if self.needs_health_check_node_port() && self.health_check_node_port != 0 {
            ports.push(self.health_check_node_port);
        }
        ports
    }

    /// The family named at this place.
    pub fn family(&self, index: usize) -> Option<IpFamily> {
        IpFamily::parse(self.ip_families.get(index)?)
    }
}
