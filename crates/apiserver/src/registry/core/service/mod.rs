//! Services: allocation of cluster IPs and node ports. Upstream: `pkg/registry/core/service`.

pub mod allocation;
mod families;
pub mod ip_addresses;
pub mod ip_allocator;
mod offsets;
pub mod port_allocator;
mod spec;

pub use allocation::ServiceAllocator;
pub use ip_addresses::IpChanges;
pub use ip_allocator::IpFamily;
pub use port_allocator::PortRange;
