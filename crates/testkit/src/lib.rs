//! Real clusters for tests: the real binary in a network of its own, driven with stock kubectl.
//!
//! A [`Network`] is two network namespaces joined by a veth: the machine that the cluster runs on, and a machine
//! outside. No packet can leave them. A [`Cluster`] runs `coracle up` in it, in a temporary directory. Both are
//! taken down when dropped, also when the test panics; a [`Guard`] does it when the test is killed.

mod cluster;
mod guard;
mod image;
pub mod ipv6_twin;
mod network;
mod rollout;

pub use cluster::{Cluster, Finished, eventually};
pub use guard::Guard;
pub use image::{BUSYBOX, web_servers, write_busybox};
pub use network::{NODE_IP, NODE_IPV6, Network, OUTSIDE_IP, OUTSIDE_IPV6};
pub use rollout::{Outcome, replace_under_load};
