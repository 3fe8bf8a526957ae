//! No request is lost when all Pods behind a Service are replaced under load: no `preStop`, no sleep in the Pod.

use anyhow::Result;
use coracle_testkit::{Cluster, replace_under_load};

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const ROLLOUTS: usize = 3;

#[test]
fn a_rolling_replacement_under_load_loses_no_request() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    cluster.load_demo_images()?;
    let outcomes = replace_under_load(&cluster, ROLLOUTS)?;
    let lost: Vec<_> = outcomes
        .iter()
        .filter(|outcome| !outcome.failed.is_empty())
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    for outcome in &outcomes {
        // So few would not be constant load.
        assert!(outcome.answered >= 50, "{outcome:?}");
        eprintln!("{}: {} requests, none failed", outcome.client, outcome.answered);
    }
    Ok(())
}
