//! The hostname and domain that a pod sees. Upstream: `Kubelet.GeneratePodHostNameAndDomain`.

use k8s_openapi::api::core::v1::Pod;

/// A name of a host may have 64 bytes with the terminating zero.
const MAX: usize = 63;

/// Hostname, and domain (empty unless `spec.subdomain` is set).
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else {
        return (truncate(name), String::new());
    };
    if let Some(overridden) = &spec.hostname_override {
        return (truncate(overridden), String::new());
    }
    let hostname = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(name);
    let domain = match spec.subdomain.as_deref() {
        Some(subdomain) if !subdomain.is_empty() => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            format!("{subdomain}.{namespace}.svc.{cluster_domain}")
        }
        _ => String::new(),
    };
    (truncate(hostname), domain)
}

fn truncate(hostname: &str) -> String {
    if hostname.len() <= MAX {
        return hostname.to_owned();
    }
    // Object names are ASCII, so every byte is a character boundary; `get` keeps that from being a panic.
    hostname
        .get(..MAX)
        .unwrap_or(hostname)
        .trim_end_matches(['-', '.'])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::serde_json::{from_value, json};

    fn of(spec: k8s_openapi::serde_json::Value, name: &str) -> (String, String) {
        let pod: Pod =
            from_value(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec})).expect("a pod");
        hostname_and_domain(&pod, "cluster.local")
    }

    #[test]
    fn names() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(of(json!({"containers": []}), "web-0"), pair("web-0", ""));
        assert_eq!(
            of(
                json!({"containers": [], "hostname": "h", "subdomain": "web"}),
                "web-0"
            ),
            pair("h", "web.ns.svc.cluster.local")
        );
        assert_eq!(
            of(
                json!({"containers": [], "hostnameOverride": "db.example.org", "subdomain": "x"}),
                "web-0"
            ),
            pair("db.example.org", "")
        );
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(20));
        assert_eq!(of(json!({"containers": []}), &long).0, "a".repeat(62));
    }
}
