//! `coracle up`: a cluster in the foreground, or (`--detach`) in the background.

use crate::cli::UpArgs;
use crate::cluster::Cluster;
use crate::cluster::progress::line;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Runs `coracle up …`.
pub async fn run(args: UpArgs) -> Result<()> {
    if args.detach {
        return detach(&args);
    }
    let mut cluster = Cluster::start(args.cluster).await?;
    let ended = cluster.until_stopped().await;
    line("Stopping; containers run on (`coracle down` ends them)");
    cluster.stop().await;
    ended
}

/// Starts the same command without `--detach` in a session of its own, and returns when it says that it is ready.
fn detach(args: &UpArgs) -> Result<()> {
    std::fs::create_dir_all(&args.cluster.data_dir)
        .with_context(|| format!("cannot create {}", args.cluster.data_dir.display()))?;
    let log = args.cluster.data_dir.join("coracle.log");
    let file = File::options().create(true).append(true).open(&log);
    let file = file.with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command
        .args(std::env::args_os().skip(1).filter(|arg| arg != "--detach"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .process_group(0);
    let mut child = command.spawn().context("cannot start the daemon")?;
    let stdout = child.stdout.take().context("the daemon's output is not piped")?;
    for text in BufReader::new(stdout).lines() {
        let text = text?;
        line(&text);
        if text.starts_with("Ready") {
            line(&format!("process {}, log in {}", child.id(), log.display()));
            return Ok(());
        }
    }
    let status = child.wait()?;
    bail!("the daemon ended ({status}); see {}", log.display())
}
