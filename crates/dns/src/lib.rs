//! Cluster DNS: answers for Services and Pods from the node's own caches, and forwards everything else.
//!
//! [`zone`] holds what the cluster is, `answer` looks names up in it, [`forward`] asks resolvers and remembers what
//! they said, [`search_path`] knows what clients would ask next; `respond` makes one answer of all that without
//! waiting for anything, and [`serve`] is the thin part with sockets. `query`, `reply` and `records` read and write
//! messages in place: no message is built that would only be encoded.
//! Upstream: the Kubernetes DNS specification 1.1.0; CoreDNS' plugins `kubernetes`, `autopath`, `cache`, `forward`
//! and `loop`; kube-dns for the configuration.

#![allow(
    clippy::large_enum_variant,
    reason = "a name is a quarter of a kilobyte on the stack, and stays there: answering allocates nothing for it"
)]

mod answer;
pub mod forward;
#[cfg(test)]
mod fuzz;
#[cfg(fuzzing)]
pub mod fuzzing;
mod metrics;
mod name;
mod query;
mod record_type;
mod records;
mod reply;
mod respond;
pub mod search_path;
pub mod serve;
#[cfg(test)]
mod testing;
pub mod zone;

pub use answer::TTL;
pub use forward::{ForwardConfig, Forwarder};
pub use metrics::{Histogram, exponential};
pub use name::{InvalidName, Name};
pub use respond::{Answers, SharedZone};
pub use search_path::{SearchPath, SearchPaths, SharedSearchPaths};
pub use serve::Server;
pub use zone::Zone;
