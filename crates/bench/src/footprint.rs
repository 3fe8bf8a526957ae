//! What the cluster costs before it does anything: start, idle memory and CPU, size on disk.

use crate::figure;
use anyhow::{Context, Result};
use coracle_testkit::Cluster;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const STARTS: usize = 10;
/// After start-up everything that it left to do is done.
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(30);
const MIB: f64 = 1024.0 * 1024.0;
/// Jiffies a second: USER_HZ, the same on every Linux.
const USER_HZ: f64 = 100.0;

/// Empty directory to `Ready`: the node is Ready and DNS answers.
pub fn up(binary: &Path) -> Result<()> {
    let mut samples = Vec::new();
    for _ in 0..STARTS {
        let cluster = Cluster::prepare(&binary.to_string_lossy(), &[])?;
        samples.push(started(cluster)?);
    }
    figure::print("ready_ms", "ms", &samples);
    Ok(())
}

fn started(mut cluster: Cluster) -> Result<f64> {
    Ok(cluster.up()?.as_secs_f64() * 1000.0)
}

/// The whole process tree of a cluster that runs nothing.
pub fn idle(binary: &Path) -> Result<()> {
    let cluster = Cluster::start(&binary.to_string_lossy())?;
    let pid = cluster.pid().context("the cluster is up")?;
    std::thread::sleep(SETTLE);
    let (before, begin) = (tree(pid)?, Instant::now());
    std::thread::sleep(IDLE);
    let (after, elapsed) = (tree(pid)?, begin.elapsed());
    let seconds = (after.jiffies - before.jiffies) / USER_HZ;
    figure::print("idle_rss_mib", "MiB", &[after.rss / MIB]);
    figure::print(
        "idle_cpu_percent",
        "% of a core",
        &[100.0 * seconds / elapsed.as_secs_f64()],
    );
    Ok(())
}

/// The binary as users get it: stripped.
pub fn binary_size(binary: &Path) -> Result<()> {
    let bytes = fs::metadata(binary)?.len();
    figure::print("binary_mib", "MiB", &[bytes as f64 / MIB]);
    Ok(())
}

struct Usage {
    /// Bytes, summed over the processes: shared pages count in each.
    rss: f64,
    jiffies: f64,
}

/// A process and all that descend from it.
fn tree(root: u32) -> Result<Usage> {
    let mut parents: HashMap<u32, u32> = HashMap::new();
    let mut usage: HashMap<u32, Usage> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Some(pid) = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.parse().ok())
        else {
            continue;
        };
        // A process may end between the listing and the reading.
        let (Ok(stat), Ok(status)) = (
            fs::read_to_string(path.join("stat")),
            fs::read_to_string(path.join("status")),
        ) else {
            continue;
        };
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().collect())
            .unwrap_or_default();
        let number = |index: usize| {
            fields
                .get(index)
                .and_then(|f| f.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        parents.insert(pid, number(1) as u32);
        let rss_kib = rss_kib(&status).unwrap_or(0.0);
        usage.insert(
            pid,
            Usage {
                rss: rss_kib * 1024.0,
                jiffies: number(11) + number(12),
            },
        );
    }
    let belongs = |mut pid: u32| {
        while pid != root {
            match parents.get(&pid) {
                Some(parent) if *parent != 0 => pid = *parent,
                _ => return false,
            }
        }
        true
    };
    let mut sum = Usage {
        rss: 0.0,
        jiffies: 0.0,
    };
    for (_, one) in usage.iter().filter(|(pid, _)| belongs(**pid)) {
        sum.rss += one.rss;
        sum.jiffies += one.jiffies;
    }
    Ok(sum)
}

/// MiB of memory that this process has in use.
pub fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(rss_kib(&status).context("a process without memory")? / 1024.0)
}

fn rss_kib(status: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    rest.split_whitespace().next()?.parse().ok()
}
