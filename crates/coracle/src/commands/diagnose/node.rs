//! The node that the command runs on, and the network namespaces in it.

use coracle_diagnose::Node as Described;
use coracle_kernel::net::netns;
use coracle_kernel::net::rtnetlink::Rtnetlink;
use k8s_openapi::api::core::v1::{Node, Pod};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// This node of the cluster.
pub struct Here {
    pub name: String,
    /// What the Node object says: where NodePorts are looked for.
    pub addresses: Vec<IpAddr>,
    /// All that the machine has.
    own: Vec<IpAddr>,
    namespaces: PathBuf,
}

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// That of the node, which this process is in.
    Node,
    /// That of a Pod, by the file that names it.
    Pod(PathBuf),
}

impl Here {
    /// Finds the Node object of this machine by its addresses; an error says why the node cannot be looked at.
    pub fn find(nodes: &[Node], run_dir: &Path) -> Result<Self, String> {
        // The owner of /proc/self is this process's effective user.
        let root = std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
        if !root {
            return Err("it takes root on a node of the cluster".to_owned());
        }
        let own = Rtnetlink::open()
            .and_then(|mut netlink| netlink.addresses())
            .map_err(|error| describe(&error))?;
        let own: Vec<IpAddr> = own
            .iter()
            .map(|address| address.ip)
            .filter(|ip| !ip.is_loopback())
            .collect();
        let here = nodes.iter().find_map(|node| {
            let addresses = addresses(node);
            let mine = addresses.iter().any(|address| own.contains(address));
            mine.then(|| (node.metadata.name.clone().unwrap_or_default(), addresses))
        });
        let Some((name, addresses)) = here else {
            return Err("this machine is no node of the cluster".to_owned());
        };
        Ok(Self {
            name,
            addresses,
            own,
            namespaces: run_dir.join("netns"),
        })
    }

    /// The network namespace of a Pod; an error says why it cannot be entered.
    pub fn place_of(&self, pod: &Pod) -> Result<Place, String> {
        let spec = pod.spec.as_ref();
        match spec.and_then(|spec| spec.node_name.as_deref()) {
            Some(node) if node == self.name => (),
            Some(node) if !node.is_empty() => return Err(format!("it is on node {node}: run this there")),
            _ => return Err("it is on no node yet".to_owned()),
        }
        if spec.and_then(|spec| spec.host_network) == Some(true) {
            return Ok(Place::Node);
        }
        let path = self
            .namespaces
            .join(pod.metadata.uid.as_deref().unwrap_or_default());
        if netns::exists(&path) {
            Ok(Place::Pod(path))
        } else {
            Err(format!(
                "it has no network namespace in {} (--run-dir names another directory)",
                self.namespaces.display()
            ))
        }
    }

    pub fn describe(&self) -> Described {
        let addresses: BTreeSet<&IpAddr> = self.addresses.iter().chain(&self.own).collect();
        let first = self.addresses.iter().copied();
        let others = addresses
            .into_iter()
            .copied()
            .filter(|ip| !self.addresses.contains(ip));
        Described {
            name: self.name.clone(),
            addresses: first.chain(others).collect(),
        }
    }
}

impl Place {
    /// Runs something in the namespace. It may block.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T, String> {
        match self {
            Self::Node => Ok(inside()),
            Self::Pod(path) => netns::run(path, inside).map_err(|error| describe(&error)),
        }
    }
}

fn addresses(node: &Node) -> Vec<IpAddr> {
    let status = node.status.as_ref();
    let addresses = status
        .and_then(|status| status.addresses.as_ref())
        .into_iter()
        .flatten();
    addresses
        .filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"))
        .filter_map(|address| address.address.parse().ok())
        .collect()
}

/// An error and all its sources in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
