//! Version 2: one hierarchy, whose controllers are handed down level by level.

use std::fs;
use std::io;
use std::path::Path;

use super::{Limits, Usage, field, read_number, write};

/// What containers' limits and statistics need.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

pub(super) fn create(root: &Path, path: &Path) -> io::Result<()> {
    let mut directory = root.to_owned();
    for component in path.components() {
        hand_down(&directory)?;
        directory.push(component);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    Ok(())
}

/// Lets groups below `directory` use the controllers that it has.
fn hand_down(directory: &Path) -> io::Result<()> {
    let available = fs::read_to_string(directory.join("cgroup.controllers"))?;
    let enabled = fs::read_to_string(directory.join("cgroup.subtree_control"))?;
    let is_in = |list: &str, controller: &str| list.split_whitespace().any(|name| name == controller);
    let missing: Vec<String> = CONTROLLERS
        .iter()
        .filter(|controller| is_in(&available, controller) && !is_in(&enabled, controller))
        .map(|controller| format!("+{controller}"))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        write(&directory.join("cgroup.subtree_control"), &missing.join(" "))
    }
}

pub(super) fn set(directory: &Path, limits: &Limits) -> io::Result<()> {
    let put = |file: &str, value: String| write(&directory.join(file), &value);
    if let Some(shares) = limits.cpu_shares {
        put("cpu.weight", weight(shares).to_string())?;
    }
    if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
        let quota = limits
            .cpu_quota
            .filter(|quota| *quota >= 0)
            .map_or("max".to_owned(), |quota| quota.to_string());
        put(
            "cpu.max",
            format!("{quota} {}", limits.cpu_period.unwrap_or(100_000)),
        )?;
    }
    if let Some(memory) = limits.memory {
        put("memory.max", memory.to_string())?;
    }
    if limits.oom_group && directory.join("memory.oom.group").exists() {
        put("memory.oom.group", "1".to_owned())?;
    }
    if let Some(pids) = limits.pids {
        put("pids.max", pids.to_string())?;
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        put("cpuset.cpus", cpus.clone())?;
    }
    if let Some(mems) = &limits.cpuset_mems {
        put("cpuset.mems", mems.clone())?;
    }
    Ok(())
}

/// `cpu.weight` for `cpu.shares`, as runc converts it (KEP-2254): 2…262144 to 1…10000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

pub(super) fn usage(directory: &Path) -> io::Result<Usage> {
    // A controller that the hierarchy lacks has no files.
    let number = |file: &str| read_number(&directory.join(file)).or_else(zero_if_absent);
    let cpu = fs::read_to_string(directory.join("cpu.stat"))?;
    let memory = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    Ok(Usage {
        cpu_ns: field(&cpu, "usage_usec") * 1000,
        memory: number("memory.current")?,
        memory_inactive_file: field(&memory, "inactive_file"),
        memory_anonymous: field(&memory, "anon"),
        pids: number("pids.current")?,
    })
}

fn zero_if_absent(error: io::Error) -> io::Result<u64> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(0)
    } else {
        Err(error)
    }
}
