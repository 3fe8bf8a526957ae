//! The other way to tell the kernel: the chains of iptables that textbooks show, under the names that upstream gives
//! them. For reading along, and for kernels without maps in nf_tables; a chain a Service port and a chain an endpoint,
//! walked one after the other. Upstream: pkg/proxy/iptables.
//!
//! [`Ruleset`] is what should be there, [`Installed`] what is; together they are the input of `iptables-restore
//! --noflush`: only chains that differ are written.

mod names;
mod restore;
mod service;

pub use restore::Installed;

use crate::tables::Config;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;

/// A table of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Who may pass.
    Filter,
    /// Addresses rewritten.
    Nat,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Table::Filter => "filter",
            Table::Nat => "nat",
        })
    }
}

const SERVICES: &str = "KUBE-SERVICES";
const EXTERNAL_SERVICES: &str = "KUBE-EXTERNAL-SERVICES";
const NODE_PORTS: &str = "KUBE-NODEPORTS";
const FORWARD: &str = "KUBE-FORWARD";
const FIREWALL: &str = "KUBE-PROXY-FIREWALL";
const POSTROUTING: &str = "KUBE-POSTROUTING";
const MARK_MASQ: &str = "KUBE-MARK-MASQ";

/// Chains that are always there.
const FIXED: [(Table, &str); 9] = [
    (Table::Filter, SERVICES),
    (Table::Filter, EXTERNAL_SERVICES),
    (Table::Filter, NODE_PORTS),
    (Table::Filter, FORWARD),
    (Table::Filter, FIREWALL),
    (Table::Nat, SERVICES),
    (Table::Nat, NODE_PORTS),
    (Table::Nat, POSTROUTING),
    (Table::Nat, MARK_MASQ),
];

const NEW: &str = "-m conntrack --ctstate NEW ";
/// From the kernel's chains to those: table, from, to, on what condition, remark.
const JUMPS: [(Table, &str, &str, &str, &str); 12] = [
    (
        Table::Filter,
        "INPUT",
        EXTERNAL_SERVICES,
        NEW,
        "kubernetes externally-visible service portals",
    ),
    (
        Table::Filter,
        "FORWARD",
        EXTERNAL_SERVICES,
        NEW,
        "kubernetes externally-visible service portals",
    ),
    (
        Table::Filter,
        "INPUT",
        NODE_PORTS,
        "",
        "kubernetes health check service ports",
    ),
    (
        Table::Filter,
        "FORWARD",
        SERVICES,
        NEW,
        "kubernetes service portals",
    ),
    (
        Table::Filter,
        "OUTPUT",
        SERVICES,
        NEW,
        "kubernetes service portals",
    ),
    (
        Table::Filter,
        "FORWARD",
        FORWARD,
        "",
        "kubernetes forwarding rules",
    ),
    (
        Table::Filter,
        "INPUT",
        FIREWALL,
        NEW,
        "kubernetes load balancer firewall",
    ),
    (
        Table::Filter,
        "OUTPUT",
        FIREWALL,
        NEW,
        "kubernetes load balancer firewall",
    ),
    (
        Table::Filter,
        "FORWARD",
        FIREWALL,
        NEW,
        "kubernetes load balancer firewall",
    ),
    (Table::Nat, "OUTPUT", SERVICES, "", "kubernetes service portals"),
    (
        Table::Nat,
        "PREROUTING",
        SERVICES,
        "",
        "kubernetes service portals",
    ),
    (
        Table::Nat,
        "POSTROUTING",
        POSTROUTING,
        "",
        "kubernetes postrouting rules",
    ),
];

/// Table and name.
type Chain = (Table, String);

/// The chains of one address family, and the rules in each without the `-A CHAIN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    chains: BTreeMap<Chain, Vec<String>>,
    /// Pods, as far as rules tell them from others.
    pods: Vec<IpNet>,
    /// What NodePorts are not on.
    loopback: &'static str,
}

impl Ruleset {
    /// No Services.
    pub(crate) fn new(config: &Config, ipv6: bool) -> Self {
        let pods = config
            .pod_cidrs
            .iter()
            .filter(|cidr| cidr.addr().is_ipv6() == ipv6);
        let mut ruleset = Self {
            chains: FIXED
                .iter()
                .map(|(table, name)| ((*table, (*name).to_owned()), Vec::new()))
                .collect(),
            pods: pods.copied().collect(),
            loopback: if ipv6 { "::1/128" } else { "127.0.0.0/8" },
        };
        for rule in [
            "-m mark ! --mark 0x4000/0x4000 -j RETURN",
            // Gone, so that no packet is masqueraded again when it comes by a second time.
            "-j MARK --xor-mark 0x4000",
            r#"-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully"#,
        ] {
            ruleset.add(Table::Nat, POSTROUTING, rule);
        }
        ruleset.add(Table::Nat, MARK_MASQ, "-j MARK --or-mark 0x4000");
        for rule in [
            // Else the node would reset a connection whose packet came too late.
            "-m conntrack --ctstate INVALID -j DROP",
            r#"-m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT"#,
            r#"-m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"#,
        ] {
            ruleset.add(Table::Filter, FORWARD, rule);
        }
        ruleset
    }

    /// To be called when all Services are there.
    pub(crate) fn finish(&mut self) {
        let rule = format!(
            r#"-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL ! -d {} -j {NODE_PORTS}"#,
            self.loopback
        );
        self.add(Table::Nat, SERVICES, rule);
    }

    /// Makes a chain in which nothing need be: a rule may only lead to one that is there.
    fn make(&mut self, chain: &str) {
        self.chains.entry((Table::Nat, chain.to_owned())).or_default();
    }

    fn add(&mut self, table: Table, chain: &str, rule: impl Into<String>) {
        let chain = self.chains.entry((table, chain.to_owned())).or_default();
        chain.push(rule.into());
    }
}

/// The whole of it, as `iptables-save` would order it.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Installed::default().restore(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
