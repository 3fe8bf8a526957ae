//! The `/etc/hosts` of a pod. Upstream: `managedHostsFileContent` and `nodeHostsFileContent`.

use k8s_openapi::api::core::v1::HostAlias;
use std::fmt::Write;
use std::net::IpAddr;

/// The file of a pod with its own network.
pub fn managed(pod_ips: &[IpAddr], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in pod_ips {
        let _ = if domain.is_empty() {
            writeln!(text, "{ip}\t{hostname}")
        } else {
            writeln!(text, "{ip}\t{hostname}.{domain}\t{hostname}")
        };
    }
    add_aliases(&mut text, aliases);
    text
}

/// The file of a pod on the node's network: the node's own, with the aliases.
pub fn of_node(node_file: &str, aliases: &[HostAlias]) -> String {
    let mut text = format!("# Kubernetes-managed hosts file (host network).\n{node_file}");
    add_aliases(&mut text, aliases);
    text
}

fn add_aliases(text: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let _ = writeln!(
            text,
            "{}\t{}",
            alias.ip,
            alias.hostnames.as_deref().unwrap_or_default().join("\t")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_network_with_aliases() {
        let ips = ["10.244.0.7".parse().expect("ip"), "fd00::7".parse().expect("ip")];
        let aliases = [HostAlias {
            ip: "127.0.0.9".into(),
            hostnames: Some(vec!["foo.local".into(), "bar.local".into()]),
        }];
        let text = managed(&ips, "web-0", "web.ns.svc.cluster.local", &aliases);
        let tail = "fe00::2\tip6-allrouters\n\
            10.244.0.7\tweb-0.web.ns.svc.cluster.local\tweb-0\n\
            fd00::7\tweb-0.web.ns.svc.cluster.local\tweb-0\n\
            \n# Entries added by HostAliases.\n127.0.0.9\tfoo.local\tbar.local\n";
        assert!(text.ends_with(tail), "{text}");
        assert!(managed(&ips[..1], "p", "", &[]).ends_with("allrouters\n10.244.0.7\tp\n"));
    }

    #[test]
    fn node_network_keeps_the_nodes_file() {
        assert_eq!(
            of_node("127.0.0.1 localhost\n", &[]),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"
        );
    }
}
