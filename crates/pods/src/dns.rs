//! The `/etc/resolv.conf` of a pod by `dnsPolicy` and `dnsConfig`. Upstream: `pkg/kubelet/network/dns`.

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};
use std::fmt::Write;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
const MAX_DOMAIN_CHARS: usize = 253;

/// What resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Addresses of name servers, in order.
    pub nameservers: Vec<String>,
    /// Search domains, in order.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

/// The cluster's DNS as the node knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterDns {
    /// Addresses of the cluster DNS.
    pub servers: Vec<String>,
    /// Such as `cluster.local`.
    pub domain: String,
}

impl ResolvConf {
    /// Reads a node's resolv.conf; unknown lines are skipped. The last `search` line wins.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines().map(str::trim) {
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut fields = line.split_whitespace();
            match fields.next() {
                Some("nameserver") => conf.nameservers.extend(fields.next().map(str::to_owned)),
                Some("search") => {
                    conf.searches = fields
                        .filter(|s| *s != ".")
                        .map(|s| s.strip_suffix('.').unwrap_or(s).to_owned())
                        .collect();
                }
                Some("options") => {
                    for option in fields {
                        set_option(&mut conf.options, option.to_owned());
                    }
                }
                _ => {}
            }
        }
        conf
    }

    /// The file's content.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            let _ = writeln!(text, "search {}", self.searches.join(" "));
        }
        for server in &self.nameservers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }

    /// The configuration of a pod on a node whose own is `host`.
    pub fn for_pod(pod: &Pod, host: &Self, cluster: &ClusterDns) -> Self {
        let spec = pod.spec.as_ref();
        let host_network = spec.is_some_and(|s| s.host_network == Some(true));
        let policy = spec
            .and_then(|s| s.dns_policy.as_deref())
            .unwrap_or("ClusterFirst");
        let mut conf = match policy {
            "None" => Self::default(),
            "Default" => host.clone(),
            "ClusterFirst" if host_network => host.clone(),
            _ if cluster.servers.is_empty() => host.clone(),
            _ => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                Self::cluster_first(namespace, host, cluster)
            }
        };
        if let Some(own) = spec.and_then(|s| s.dns_config.as_ref()) {
            conf.merge(own);
        }
        conf.fit_limits();
        conf
    }

    fn cluster_first(namespace: &str, host: &Self, cluster: &ClusterDns) -> Self {
        let mut searches = Vec::new();
        if !cluster.domain.is_empty() {
            searches.push(format!("{namespace}.svc.{}", cluster.domain));
            searches.push(format!("svc.{}", cluster.domain));
            searches.push(cluster.domain.clone());
        }
        append_new(&mut searches, &host.searches);
        Self {
            nameservers: cluster.servers.clone(),
            searches,
            options: vec!["ndots:5".to_owned()],
        }
    }

    fn merge(&mut self, own: &PodDNSConfig) {
        append_new(
            &mut self.nameservers,
            own.nameservers.as_deref().unwrap_or_default(),
        );
        append_new(&mut self.searches, own.searches.as_deref().unwrap_or_default());
        for option in own.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            let text = match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.to_owned(),
            };
            set_option(&mut self.options, text);
        }
    }

    /// Resolvers abort on more than these.
    fn fit_limits(&mut self) {
        self.nameservers.truncate(MAX_NAMESERVERS);
        self.searches.truncate(MAX_SEARCHES);
        self.searches.retain(|s| s.len() <= MAX_DOMAIN_CHARS);
        while self.searches.iter().map(|s| s.len() + 1).sum::<usize>() > MAX_SEARCH_CHARS + 1 {
            self.searches.pop();
        }
    }
}

fn append_new(list: &mut Vec<String>, more: &[String]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// Replaces the option of the same name or appends.
fn set_option(options: &mut Vec<String>, option: String) {
    let name = |o: &str| o.split(':').next().unwrap_or_default().to_owned();
    match options.iter_mut().find(|o| name(o) == name(&option)) {
        Some(existing) => *existing = option,
        None => options.push(option),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::serde_json::{Value, from_value, json};

    fn for_pod(spec: Value) -> String {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod: Pod =
            from_value(json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec})).expect("a pod");
        let host = ResolvConf::parse(
            "# node\nnameserver 192.0.2.1\nsearch corp.example. .\noptions edns0 timeout:2\n",
        );
        let cluster = ClusterDns {
            servers: vec!["10.96.0.10".into()],
            domain: "cluster.local".into(),
        };
        ResolvConf::for_pod(&pod, &host, &cluster).render()
    }

    #[test]
    fn cluster_first() {
        assert_eq!(
            for_pod(json!({"dnsPolicy": "ClusterFirst"})),
            "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n\
             nameserver 10.96.0.10\noptions ndots:5\n"
        );
    }

    #[test]
    fn host_network_falls_back_to_the_node() {
        let node = "search corp.example\nnameserver 192.0.2.1\noptions edns0 timeout:2\n";
        assert_eq!(
            for_pod(json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true})),
            node
        );
        assert_eq!(for_pod(json!({"dnsPolicy": "Default"})), node);
        assert!(
            for_pod(json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}))
                .contains("10.96.0.10")
        );
    }

    #[test]
    fn own_config_merges() {
        assert_eq!(
            for_pod(json!({"dnsPolicy": "ClusterFirst", "dnsConfig": {
                "nameservers": ["192.0.2.9"], "searches": ["svc.cluster.local", "x.y"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}})),
            "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example x.y\n\
             nameserver 10.96.0.10\nnameserver 192.0.2.9\noptions ndots:2 rotate\n"
        );
        assert_eq!(
            for_pod(
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}})
            ),
            "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\n"
        );
    }
}
