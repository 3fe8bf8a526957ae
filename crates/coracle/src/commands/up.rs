//! `coracle up`: a cluster in the foreground.

use crate::cli::UpArgs;
use crate::cluster::Cluster;
use crate::cluster::progress::line;
use anyhow::Result;

/// Runs `coracle up …`.
pub async fn run(args: UpArgs) -> Result<()> {
    let mut cluster = Cluster::start(args.cluster).await?;
    let ended = cluster.until_stopped().await;
    line("Stopping; containers run on (`coracle down` ends them)");
    cluster.stop().await;
    ended
}
