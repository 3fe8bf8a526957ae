//! The data plane as pure data: Services, EndpointSlices and NetworkPolicies in, small changes of flat kernel maps out.
//!
//! [`Tables`] is fed with objects and says which [`Commit`] brings the kernel to what they ask for. Nothing here talks
//! to a kernel: [`fake_kernel`] has the same semantics as the packet rules and answers what would happen to a packet.
//! Upstream: pkg/proxy.
//!
//! The kernel holds one map from a frontend (address, protocol, port) to its [`Class`], which says how many endpoints
//! it has and how to choose among them, and one map from (frontend, slot) to an endpoint. All Services with the same
//! number of endpoints share one chain of rules, so a change of a Service changes a few map elements and no rule. What
//! NetworkPolicies let through is map elements, too: see [`PolicyKey`].

mod class;
mod endpoint_slice;
pub mod fake_kernel;
#[cfg(test)]
mod fixtures;
mod frontend;
mod host_port;
pub mod iptables;
mod load;
mod needs;
mod network_policy;
mod service_port;
mod slots;
mod sorted;
mod tables;
mod topology;

pub use class::{Balancing, Class, Load, Pick, Source};
pub use endpoint_slice::Endpoint;
pub use frontend::{
    Commit, Entry, Frontend, Grace, Key, LOCAL_SLOTS, Operation, Protocol, State, Target, Value, endpoint_ids,
};
pub use load::Counted;
pub use network_policy::{
    Admits, Connection, Denial, Direction, Isolation, PeerPod, PodId, PolicyId, PolicyKey, Ports,
};
pub use service_port::ServicePort;
pub use tables::{Change, Config, Flows, HealthCheck, ServiceKey, Tables};
