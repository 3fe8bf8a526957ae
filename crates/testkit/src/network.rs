//! Two machines as network namespaces.

use anyhow::{Context, Result, bail};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Address of the machine that the cluster runs on.
pub const NODE_IP: &str = "172.30.0.2";
/// Address of the machine outside.
pub const OUTSIDE_IP: &str = "172.30.0.1";
/// IPv6 address of the machine that the cluster runs on.
pub const NODE_IPV6: &str = "fd00:172:30::2";
/// IPv6 address of the machine outside.
pub const OUTSIDE_IPV6: &str = "fd00:172:30::1";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The node's network namespace and one outside of it, joined by a veth.
pub struct Network {
    node: String,
    outside: String,
}

impl Network {
    /// Makes both namespaces. Needs root: a test that cannot have it fails.
    pub fn new() -> Result<Self> {
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let network = Self {
            node: format!("cn-{id}"),
            outside: format!("co-{id}"),
        };
        let (node, outside) = (network.node.as_str(), network.outside.as_str());
        for line in [
            format!("netns add {node}"),
            format!("netns add {outside}"),
            format!("-n {node} link set lo up"),
            format!("-n {outside} link set lo up"),
            format!("-n {node} link add eth0 type veth peer name eth0 netns {outside}"),
            format!("-n {node} address add {NODE_IP}/24 dev eth0"),
            format!("-n {outside} address add {OUTSIDE_IP}/24 dev eth0"),
            format!("-n {node} address add {NODE_IPV6}/64 dev eth0 nodad"),
            format!("-n {outside} address add {OUTSIDE_IPV6}/64 dev eth0 nodad"),
            format!("-n {node} link set eth0 up"),
            format!("-n {outside} link set eth0 up"),
            format!("-n {node} route add default via {OUTSIDE_IP}"),
            format!("-n {node} -6 route add default via {OUTSIDE_IPV6}"),
        ] {
            let output = Command::new("ip")
                .args(line.split(' '))
                .output()
                .context("cannot run ip (Debian package iproute2)")?;
            if !output.status.success() {
                bail!("ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
        }
        Ok(network)
    }

    /// Names of the namespaces: the node's, and the one outside.
    pub(crate) fn namespaces(&self) -> (&str, &str) {
        (&self.node, &self.outside)
    }

    /// A command that will run on the node's network.
    pub fn on_node(&self, program: &str) -> Command {
        enter(&self.node, program)
    }

    /// A command that will run on the machine outside.
    pub fn outside(&self, program: &str) -> Command {
        enter(&self.outside, program)
    }
}

/// `nsenter` and not `ip netns exec`: the latter mounts a new /sys, and the cgroups would be gone.
fn enter(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
    command
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.node, &self.outside] {
            // What is left when this fails is an empty namespace.
            let _ = Command::new("ip").args(["netns", "delete", namespace]).output();
        }
    }
}
