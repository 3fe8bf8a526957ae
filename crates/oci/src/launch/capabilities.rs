//! What root may do in a container. Upstream counterpart: containerd's `oci.WithCapabilities`, runc's
//! `libcontainer/capabilities`.

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::Failure;
use crate::spec::Capabilities;

/// All names in the order of their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container's root gets unless the pod says otherwise: containerd's list.
const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

fn all() -> CapabilitySet {
    CapabilitySet::from_bits_retain((1 << NAMES.len()) - 1)
}

/// Names as the OCI runtime specification has them.
pub(crate) fn names(set: CapabilitySet) -> Vec<String> {
    let held = |(number, _): &(usize, &&str)| set.bits() >> number & 1 == 1;
    NAMES
        .iter()
        .enumerate()
        .filter(held)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect()
}

/// The capabilities of a container, whether this node has them or not.
pub(crate) fn wanted(change: &Capabilities, privileged: bool) -> Result<CapabilitySet, String> {
    if privileged {
        return Ok(all());
    }
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut set = if change.drop.iter().any(is_all) {
        CapabilitySet::empty()
    } else if change.add.iter().any(is_all) {
        all()
    } else {
        DEFAULT
    };
    for name in change.add.iter().filter(|name| !is_all(name)) {
        set |= parse(name)?;
    }
    for name in change.drop.iter().filter(|name| !is_all(name)) {
        set -= parse(name)?;
    }
    Ok(set)
}

/// What this node has of a set.
pub(crate) fn available(set: CapabilitySet) -> CapabilitySet {
    let each = (0..NAMES.len()).map(|number| CapabilitySet::from_bits_retain(1 << number));
    // A kernel that does not know a capability says so.
    each.filter(|one| {
        set.contains(*one) && rustix::thread::capability_is_in_bounding_set(*one).unwrap_or(false)
    })
    .collect()
}

fn parse(name: &str) -> Result<CapabilitySet, String> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let number = NAMES.iter().position(|known| *known == short);
    number
        .map(|number| CapabilitySet::from_bits_retain(1 << number))
        .ok_or_else(|| format!("unknown capability {name:?}"))
}

/// Takes from this process's bounding set all but `set`; returns what is left of `set`.
pub(super) fn bound(set: CapabilitySet) -> Result<CapabilitySet, Failure> {
    let mut kept = CapabilitySet::empty();
    for number in 0..NAMES.len() {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // A kernel that does not know it says so; there is nothing to drop then.
        if !rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false) {
            continue;
        }
        if set.contains(capability) {
            kept |= capability;
        } else {
            rustix::thread::remove_capability_from_bounding_set(capability)
                .map_err(Failure::at("drop capabilities"))?;
        }
    }
    Ok(kept)
}

/// Makes `set` this thread's capabilities. None is inheritable (CVE-2022-24769) or ambient: a user other than root loses
/// them when its program is executed.
pub(super) fn apply(set: CapabilitySet) -> Result<(), Failure> {
    let sets = CapabilitySets {
        effective: set,
        permitted: set,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(Failure::at("set capabilities"))?;
    rustix::thread::clear_ambient_capability_set().map_err(Failure::at("clear ambient capabilities"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(add: &[&str], drop: &[&str]) -> Capabilities {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Capabilities {
            add: list(add),
            drop: list(drop),
        }
    }

    #[test]
    fn names_are_in_the_kernels_order() {
        assert_eq!(parse("CAP_SYS_ADMIN").unwrap(), CapabilitySet::SYS_ADMIN);
        assert_eq!(parse("chown").unwrap(), CapabilitySet::CHOWN);
        assert_eq!(
            parse("CHECKPOINT_RESTORE").unwrap(),
            CapabilitySet::CHECKPOINT_RESTORE
        );
        assert_eq!(parse("FLY").unwrap_err(), "unknown capability \"FLY\"");
        assert_eq!(
            names(CapabilitySet::CHOWN | CapabilitySet::BPF),
            ["CAP_CHOWN", "CAP_BPF"]
        );
    }

    #[test]
    fn changes_apply_as_containerd_applies_them() {
        assert_eq!(wanted(&change(&[], &[]), false).unwrap().bits(), 0xa804_25fb);
        assert_eq!(
            wanted(&change(&["NET_ADMIN"], &["ALL"]), false).unwrap(),
            CapabilitySet::NET_ADMIN
        );
        assert_eq!(
            wanted(&change(&["ALL"], &["SYS_ADMIN"]), false).unwrap(),
            all() - CapabilitySet::SYS_ADMIN
        );
        assert_eq!(
            wanted(&change(&[], &["KILL"]), false).unwrap(),
            DEFAULT - CapabilitySet::KILL
        );
        assert_eq!(wanted(&change(&[], &["ALL"]), true).unwrap(), all());
    }
}
