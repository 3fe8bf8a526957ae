//! A machine without a cluster: a network namespace of its own, with Pods where they are wanted. All of it goes when
//! the measurement ends, however it ends.

use anyhow::{Context, Result};
use coracle_kernel::net::netns;
use coracle_node::pod_network::{PodInterface, PodNetwork, PodNetworkConfig};
use coracle_testkit::Guard;
use std::net::Ipv4Addr;
use std::path::Path;

/// Addresses of Pods, of all nodes.
pub const POD_CIDR: &str = "10.128.0.0/9";
/// Addresses of the Pods that run here.
const OWN_POD_CIDR: &str = "10.128.0.0/16";
/// Addresses of Services.
pub const SERVICE_CIDR: &str = "10.96.0.0/12";

/// The network namespace that the calling thread is in, with a Pod network.
pub struct Machine {
    network: PodNetwork,
}

/// Runs a measurement on a thread inside a fresh namespace.
pub fn run<T: Send>(work: impl FnOnce(&Machine) -> Result<T> + Send) -> Result<T> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let _guard = Guard::new(directory.path())?;
    let name = directory.path().join("machine");
    let done = netns::create(&name, |_| {
        Ok(Machine::new(directory.path()).and_then(|machine| {
            let done = work(&machine);
            // The mounts that name the Pods' namespaces are the host's, and do not go with this namespace.
            machine.network.tear_down()?;
            done
        }))
    });
    netns::delete(&name)?;
    done.context("cannot make a network namespace: measuring needs root")?
}

impl Machine {
    fn new(directory: &Path) -> Result<Self> {
        let network = PodNetwork::new(PodNetworkConfig {
            directory: directory.join("pods"),
            pod_cidrs: vec![OWN_POD_CIDR.parse()?],
            service_cidrs: vec![SERVICE_CIDR.parse()?],
            local_addresses: Vec::new(),
            mtu: None,
        })?;
        Ok(Self { network })
    }

    /// A Pod of this machine.
    pub fn pod(&self, name: &str, ip: Ipv4Addr) -> Result<PodInterface> {
        Ok(self.network.attach(name, &[ip.into()])?)
    }
}

/// Runs a closure inside a Pod.
pub fn inside<T: Send>(pod: &PodInterface, work: impl FnOnce() -> T + Send) -> Result<T> {
    Ok(netns::run(&pod.netns_path, work)?)
}
