//! Requests that fail while all Pods behind a Service are replaced under constant load.

use crate::figure;
use anyhow::{Result, ensure};
use coracle_testkit::{Cluster, replace_under_load};
use std::path::Path;

const ROLLOUTS: usize = 5;

/// Prints `rollout_failed_requests`: a sample is the failures of one client over all replacements.
pub fn measure(binary: &Path) -> Result<()> {
    let cluster = Cluster::start(&binary.to_string_lossy())?;
    cluster.load_demo_images()?;
    let outcomes = replace_under_load(&cluster, ROLLOUTS)?;
    for outcome in &outcomes {
        eprintln!(
            "{}: {} answered, {} failed",
            outcome.client,
            outcome.answered,
            outcome.failed.len()
        );
        outcome
            .failed
            .iter()
            .take(5)
            .for_each(|line| eprintln!("  {line}"));
        ensure!(outcome.answered > 0, "{outcome:?}");
    }
    let failed: Vec<f64> = outcomes
        .iter()
        .map(|outcome| outcome.failed.len() as f64)
        .collect();
    figure::print("rollout_failed_requests", "", &failed);
    Ok(())
}
