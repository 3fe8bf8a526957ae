//! Kernel parameters below /proc/sys/net, which belong to the network namespace of the calling thread.

use super::{Error, Result};

/// Sets a parameter such as `ipv4/ip_forward`, unless it has the value already: a read-only /proc/sys is then no error.
pub fn set(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value)
        .map_err(|error| Error::new(format!("set the kernel parameter {path} to {value}"), error))
}
