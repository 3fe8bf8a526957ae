//! Kernel parameters below /proc/sys/net, which belong to the network namespace of the calling thread.

use super::{Error, Result};

/// The value of a parameter; none if it does not exist or cannot be read.
pub fn get(name: &str) -> Option<String> {
    let value = std::fs::read_to_string(path(name)).ok()?;
    Some(value.trim().to_owned())
}

/// Sets a parameter such as `ipv4/ip_forward`, unless it has the value already: a read-only /proc/sys is then no error.
pub fn set(name: &str, value: &str) -> Result<()> {
    if get(name).is_some_and(|now| now == value) {
        return Ok(());
    }
    let path = path(name);
    std::fs::write(&path, value)
        .map_err(|error| Error::new(format!("set the kernel parameter {path} to {value}"), error))
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}
