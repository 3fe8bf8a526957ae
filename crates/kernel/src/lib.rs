//! What the Linux kernel offers to the node: networks, processes, mounts, control groups. The only crate of the
//! workspace with `unsafe`; everything it exports is safe to call.

pub mod cgroup;
pub mod mount;
pub mod net;
pub mod process;
pub mod root;
