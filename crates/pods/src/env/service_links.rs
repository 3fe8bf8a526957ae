//! The variables that tell a container where Services are: `WEB_SERVICE_HOST`, `WEB_PORT_80_TCP_ADDR` …
//! Upstream: `pkg/kubelet/envvars` and `Kubelet.getServiceEnvVarMap`.

use k8s_openapi::api::core::v1::Service;
use std::collections::BTreeMap;

/// The variables of the Services that a pod in `namespace` is told of: always `default/kubernetes`, and with
/// `enable_service_links` those of its namespace.
pub fn variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    enable_service_links: bool,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, (&Service, &str)> = BTreeMap::new();
    for service in services {
        let Some(ip) = cluster_ip(service) else { continue };
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        if own == "default" && name == "kubernetes" {
            chosen.entry(name).or_insert((service, ip));
        } else if own == namespace && enable_service_links {
            chosen.insert(name, (service, ip));
        }
    }
    let mut variables = BTreeMap::new();
    for (name, (service, ip)) in chosen {
        add(&mut variables, name, service, ip);
    }
    variables
}

fn cluster_ip(service: &Service) -> Option<&str> {
    let ip = service.spec.as_ref()?.cluster_ip.as_deref()?;
    (!ip.is_empty() && ip != "None").then_some(ip)
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn add(variables: &mut BTreeMap<String, String>, name: &str, service: &Service, ip: &str) {
    let ports = service
        .spec
        .as_ref()
        .and_then(|s| s.ports.as_deref())
        .unwrap_or_default();
    let prefix = variable_name(name);
    variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    };
    for (index, port) in ports.iter().enumerate() {
        let number = port.port;
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{host}:{number}");
        if index == 0 {
            variables.insert(format!("{prefix}_SERVICE_PORT"), number.to_string());
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let suffix = variable_name(port_name);
            variables.insert(format!("{prefix}_SERVICE_PORT_{suffix}"), number.to_string());
        }
        let of_port = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        variables.insert(format!("{of_port}_PROTO"), lower);
        variables.insert(format!("{of_port}_PORT"), number.to_string());
        variables.insert(format!("{of_port}_ADDR"), ip.to_owned());
        variables.insert(of_port, url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::serde_json::{Value, from_value, json};

    fn service(namespace: &str, name: &str, spec: Value) -> Service {
        from_value(json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec}))
            .expect("a service")
    }

    #[test]
    fn own_namespace_and_the_api() {
        let all = [
            service(
                "default",
                "kubernetes",
                json!({"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}),
            ),
            service(
                "shop",
                "go-demo-2",
                json!({"clusterIP": "10.96.1.2",
                "ports": [{"port": 80}, {"name": "dns-udp", "port": 53, "protocol": "UDP"}]}),
            ),
            service(
                "shop",
                "headless",
                json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            ),
            service(
                "other",
                "x",
                json!({"clusterIP": "10.96.9.9", "ports": [{"port": 80}]}),
            ),
        ];
        let lines = |links| -> Vec<String> {
            variables(&all, "shop", links)
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect()
        };
        let api = [
            "KUBERNETES_PORT=tcp://10.96.0.1:443",
            "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
            "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
            "KUBERNETES_PORT_443_TCP_PORT=443",
            "KUBERNETES_PORT_443_TCP_PROTO=tcp",
            "KUBERNETES_SERVICE_HOST=10.96.0.1",
            "KUBERNETES_SERVICE_PORT=443",
            "KUBERNETES_SERVICE_PORT_HTTPS=443",
        ];
        assert_eq!(lines(false), api);
        let own = [
            "GO_DEMO_2_PORT=tcp://10.96.1.2:80",
            "GO_DEMO_2_PORT_53_UDP=udp://10.96.1.2:53",
            "GO_DEMO_2_PORT_53_UDP_ADDR=10.96.1.2",
            "GO_DEMO_2_PORT_53_UDP_PORT=53",
            "GO_DEMO_2_PORT_53_UDP_PROTO=udp",
            "GO_DEMO_2_PORT_80_TCP=tcp://10.96.1.2:80",
            "GO_DEMO_2_PORT_80_TCP_ADDR=10.96.1.2",
            "GO_DEMO_2_PORT_80_TCP_PORT=80",
            "GO_DEMO_2_PORT_80_TCP_PROTO=tcp",
            "GO_DEMO_2_SERVICE_HOST=10.96.1.2",
            "GO_DEMO_2_SERVICE_PORT=80",
            "GO_DEMO_2_SERVICE_PORT_DNS_UDP=53",
        ];
        assert_eq!(lines(true)[..own.len()], own);
        assert_eq!(lines(true)[own.len()..], api);
    }
}
