//! The rules of one Service port.

use super::names::Names;
use super::{EXTERNAL_SERVICES, FIREWALL, MARK_MASQ, NODE_PORTS, Ruleset, SERVICES, Table};
use crate::endpoint_slice::{Endpoint, EndpointsByPort};
use crate::frontend::{Protocol, Target};
use crate::service_port::ServicePort;
use crate::tables::{Config, ServiceKey};
use crate::topology::{self, Usable};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A Service port on its way into rules.
struct Port<'a> {
    port: &'a ServicePort,
    /// `namespace/name:port`.
    name: String,
    protocol: String,
    chains: Names,
    usable: Usable<'a>,
}

impl Port<'_> {
    /// Matches packets to a port of an address.
    fn to(&self, address: IpAddr, comment: &str) -> String {
        let Self {
            name, protocol, port, ..
        } = self;
        format!(
            r#"-m comment --comment "{name} {comment}" -m {protocol} -p {protocol} -d {address} --dport {}"#,
            port.port
        )
    }

    fn has_local(&self) -> bool {
        !self.usable.local.is_empty()
    }

    /// Whether clients inside are served, and clients outside.
    fn serves(&self) -> (bool, bool) {
        let any = self.usable.any;
        (
            any && (!self.port.internal_policy_local || self.has_local()),
            any && (!self.port.external_policy_local || self.has_local()),
        )
    }

    /// What happens to who is not served, and why.
    fn refusal(&self) -> (&'static str, &'static str) {
        match (self.usable.any, self.port.protocol) {
            (true, _) => ("DROP", "has no local endpoints"),
            // Upstream's has no reset; then a client on the node notices after a second.
            (false, Protocol::Tcp) => ("REJECT --reject-with tcp-reset", "has no endpoints"),
            (false, _) => ("REJECT", "has no endpoints"),
        }
    }
}

impl Ruleset {
    /// Adds what one port of a Service needs.
    pub(crate) fn add_port(
        &mut self,
        config: &Config,
        key: &ServiceKey,
        port: &ServicePort,
        endpoints: &EndpointsByPort<'_>,
    ) {
        let endpoints = endpoints
            .get(&(port.name.as_str(), port.protocol))
            .map_or(&[][..], Vec::as_slice);
        let protocol = port.protocol.to_string().to_lowercase();
        let name = match port.name.as_str() {
            "" => key.to_string(),
            name => format!("{key}:{name}"),
        };
        let port = Port {
            chains: Names::new(&name, &protocol),
            usable: topology::categorize(endpoints, port, &config.node_name, config.zone.as_deref()),
            port,
            name,
            protocol,
        };
        if !config.local_addresses.contains(&port.port.cluster_ip) {
            self.capture_cluster_ip(&port);
        }
        self.capture_external(config, &port);
        self.add_external_chain(&port);
        self.add_source_ranges(&port);
        let Port {
            chains,
            usable,
            port: of,
            ..
        } = &port;
        let mut used: BTreeSet<Target> = BTreeSet::new();
        for (is_used, chain, list) in [
            (of.uses_cluster_endpoints(), &chains.cluster, &usable.cluster),
            (of.uses_local_endpoints(), &chains.local, &usable.local),
        ] {
            if is_used && !list.is_empty() {
                self.add_choice(&port, chain, list);
                used.extend(list.iter().map(|endpoint| endpoint.target));
            }
        }
        for target in used {
            self.add_endpoint(&port, target);
        }
    }

    fn capture_cluster_ip(&mut self, port: &Port<'_>) {
        let address = port.port.cluster_ip;
        if let (false, _) = port.serves() {
            let (verdict, why) = port.refusal();
            let rule = format!("{} -j {verdict}", port.to(address, why));
            self.add(Table::Filter, SERVICES, rule);
            return;
        }
        let chain = if port.port.internal_policy_local {
            &port.chains.local
        } else {
            &port.chains.cluster
        };
        let captured = port.to(address, "cluster IP");
        self.add(Table::Nat, SERVICES, format!("{captured} -j {chain}"));
        self.make(chain);
        // Who comes from outside the pod network gets the answer through this node. A rule can exclude one range.
        if let Some(pods) = self.pods.first().copied() {
            self.add(
                Table::Nat,
                chain,
                format!("{captured} ! -s {pods} -j {MARK_MASQ}"),
            );
        }
    }

    fn capture_external(&mut self, config: &Config, port: &Port<'_>) {
        let Port {
            chains,
            usable,
            port: of,
            protocol,
            name,
            ..
        } = port;
        let (_, served) = port.serves();
        let (verdict, why) = port.refusal();
        let has_ranges = !of.source_ranges.is_empty();
        let balanced = if has_ranges {
            &chains.source_ranges
        } else {
            &chains.external
        };
        let external = of
            .external_ips
            .iter()
            .map(|ip| (ip, "external IP", &chains.external));
        let load_balancer = of.load_balancer_ips.iter();
        let load_balancer = load_balancer.map(|ip| (ip, "loadbalancer IP", balanced));
        for (address, what, chain) in external.chain(load_balancer) {
            if config.local_addresses.contains(address) {
                continue;
            }
            if usable.any {
                let rule = format!("{} -j {chain}", port.to(*address, what));
                self.add(Table::Nat, SERVICES, rule);
            }
            if !served {
                let rule = format!("{} -j {verdict}", port.to(*address, why));
                self.add(Table::Filter, EXTERNAL_SERVICES, rule);
            }
        }
        if usable.any && has_ranges {
            for address in &of.load_balancer_ips {
                let comment = format!("traffic not accepted by {}", chains.source_ranges);
                let rule = format!("{} -j DROP", port.to(*address, &comment));
                self.add(Table::Filter, FIREWALL, rule);
            }
        }
        if let Some(node_port) = of.node_port {
            let on_port = format!("-m {protocol} -p {protocol} --dport {node_port}");
            if usable.any {
                let rule = format!(
                    r#"-m comment --comment "{name}" {on_port} -j {}"#,
                    chains.external
                );
                self.add(Table::Nat, NODE_PORTS, rule);
            }
            if !served {
                let rule = format!(
                    r#"-m comment --comment "{name} {why}" -m addrtype --dst-type LOCAL {on_port} -j {verdict}"#
                );
                self.add(Table::Filter, EXTERNAL_SERVICES, rule);
            }
        }
        if let Some(health) = of.health_check_node_port {
            let rule = format!(
                r#"-m comment --comment "{name} health check node port" -m tcp -p tcp --dport {health} -j ACCEPT"#
            );
            self.add(Table::Filter, NODE_PORTS, rule);
        }
    }

    /// What comes from outside, and what is inside and asks for an address of the outside.
    fn add_external_chain(&mut self, port: &Port<'_>) {
        let Port {
            chains,
            usable,
            port: of,
            name,
            ..
        } = port;
        if !usable.any || !of.is_externally_accessible() {
            return;
        }
        let external = |comment: &str, rest: &str| {
            format!(r#"-m comment --comment "{comment} for {name} external destinations" {rest}"#)
        };
        let mut rules = Vec::new();
        let inside = &chains.cluster;
        if !of.external_policy_local {
            rules.push(external("masquerade traffic", &format!("-j {MARK_MASQ}")));
            rules.push(format!("-j {inside}"));
        } else {
            for pods in &self.pods {
                rules.push(external("pod traffic", &format!("-s {pods} -j {inside}")));
            }
            // The answer goes to an address of the node that the endpoint can reach.
            let from_here = "-m addrtype --src-type LOCAL";
            rules.push(external(
                "masquerade LOCAL traffic",
                &format!("{from_here} -j {MARK_MASQ}"),
            ));
            rules.push(external(
                "route LOCAL traffic",
                &format!("{from_here} -j {inside}"),
            ));
            if port.has_local() {
                rules.push(format!("-j {}", chains.local));
            }
        }
        for rule in rules {
            self.add(Table::Nat, &chains.external, rule);
        }
        self.make(&chains.cluster);
    }

    fn add_source_ranges(&mut self, port: &Port<'_>) {
        let Port {
            chains,
            usable,
            port: of,
            name,
            ..
        } = port;
        if !usable.any || of.load_balancer_ips.is_empty() || of.source_ranges.is_empty() {
            return;
        }
        for range in &of.source_ranges {
            let rule = format!(
                r#"-m comment --comment "{name} loadbalancer IP" -s {range} -j {}"#,
                chains.external
            );
            self.add(Table::Nat, &chains.source_ranges, rule);
        }
        let rule = format!(r#"-m comment --comment "other traffic to {name} will be dropped by {FIREWALL}""#);
        self.add(Table::Nat, &chains.source_ranges, rule);
    }

    /// First whoever a client is stuck to, then one by chance.
    fn add_choice(&mut self, port: &Port<'_>, chain: &str, list: &[&Endpoint]) {
        let comment = |target| format!(r#"-m comment --comment "{} -> {target}""#, port.name);
        if let Some(seconds) = port.port.sticky {
            for endpoint in list {
                let (comment, to) = (comment(endpoint.target), port.chains.endpoint(endpoint.target));
                let rule =
                    format!("{comment} -m recent --name {to} --rcheck --seconds {seconds} --reap -j {to}");
                self.add(Table::Nat, chain, rule);
            }
        }
        for (index, endpoint) in list.iter().enumerate() {
            let (comment, to) = (comment(endpoint.target), port.chains.endpoint(endpoint.target));
            let left = list.len() - index;
            let chance = if left > 1 {
                // Of those that are left: each is as likely as the others in the end.
                let probability = 1.0 / f64::from(u32::try_from(left).unwrap_or(u32::MAX));
                format!(" -m statistic --mode random --probability {probability:.10}")
            } else {
                String::new()
            };
            self.add(Table::Nat, chain, format!("{comment}{chance} -j {to}"));
        }
    }

    fn add_endpoint(&mut self, port: &Port<'_>, target: Target) {
        let Port { protocol, name, .. } = port;
        let chain = port.chains.endpoint(target);
        let comment = format!(r#"-m comment --comment "{name}""#);
        // A pod that reaches itself must not answer itself.
        self.add(
            Table::Nat,
            &chain,
            format!("{comment} -s {} -j {MARK_MASQ}", target.ip()),
        );
        let remember = match port.port.sticky {
            Some(_) => format!(" -m recent --name {chain} --set"),
            None => String::new(),
        };
        let rule =
            format!("{comment}{remember} -m {protocol} -p {protocol} -j DNAT --to-destination {target}");
        self.add(Table::Nat, &chain, rule);
    }
}
