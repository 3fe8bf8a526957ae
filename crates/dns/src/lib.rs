//! Cluster DNS: answers for Services and Pods from the node's own caches, and forwards everything else.
//!
//! [`zone`] holds the records, [`answer`] is pure, [`forward`] asks the host's resolvers, [`serve`] is the thin
//! part with sockets. Upstream: the Kubernetes DNS specification 1.1.0 and CoreDNS' `kubernetes` plugin.

pub mod answer;
pub mod forward;
pub mod serve;
pub mod zone;

pub use serve::{Server, SharedZone};
pub use zone::Zone;
