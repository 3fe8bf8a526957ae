//! `coracle up`: a cluster in the foreground, or (`--detach`) in the background.

use crate::cli::UpArgs;
use crate::cluster::Cluster;
use crate::cluster::preflight;
use crate::cluster::progress::line;
use crate::cluster::stop::StopSignals;
use crate::cluster::traces::Traces;
use crate::config::ClusterConfig;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// How long blocking work, such as unpacking an image, may hold up the end. What is cut off is done again.
const STOP: Duration = Duration::from_secs(1);

/// Runs `coracle up …`. A start that fails takes back what it has made.
pub fn run(args: &UpArgs) -> Result<()> {
    let config = &args.cluster;
    let mut traces = Traces::before(config)?;
    let runtime = crate::runtime()?;
    if args.detach {
        return runtime.block_on(detach(config, &traces));
    }
    let ended = runtime.block_on(start_and_stay(config, &mut traces));
    // Only when no task is left does the kernel give the cluster's rules to somebody else.
    runtime.shutdown_timeout(STOP);
    match ended {
        Ok(ended) => ended,
        Err(failed) => {
            if let Err(error) = crate::runtime()?.block_on(traces.take_back(config)) {
                tracing::error!(error = &*error as &dyn std::error::Error, "not all is taken back");
            }
            Err(failed)
        }
    }
}

/// The outer error is that of the start, the inner one that of the cluster.
async fn start_and_stay(config: &ClusterConfig, traces: &mut Traces) -> Result<Result<()>> {
    let mut signals = StopSignals::listen()?;
    let mut cluster = Cluster::start(config.clone(), traces, &mut signals).await?;
    let ended = cluster.until_stopped(&mut signals).await;
    line("Stopping; containers run on (`coracle down` ends them)");
    cluster.stop().await;
    Ok(ended)
}

/// Starts the same command without `--detach` in a process group of its own, and returns when it says that it is
/// ready.
async fn detach(config: &ClusterConfig, traces: &Traces) -> Result<()> {
    // What is wrong is better said here than in a log; the ports are the daemon's to take.
    drop(preflight::check(config)?);
    let mut signals = StopSignals::listen()?;
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot create {}", config.data_dir.display()))?;
    let path = config.data_dir.join("coracle.log");
    let log = File::options().create(true).append(true).read(true).open(&path);
    let mut log = log.with_context(|| format!("cannot write {}", path.display()))?;
    let begin = log.seek(SeekFrom::End(0)).context("cannot read the log")?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command
        .args(std::env::args_os().skip(1).filter(|arg| arg != "--detach"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().context("cannot share the log")?)
        .process_group(0);
    let mut child = command.spawn().context("cannot start the daemon")?;
    let id = child.id().context("the daemon has no process id")?;
    let stdout = child.stdout.take().context("the daemon's output is not piped")?;
    let mut lines = BufReader::new(stdout).lines();
    loop {
        // Cancel-safe: a line that was read in part stays in the reader.
        let text = tokio::select! {
            text = lines.next_line() => text.context("cannot read the daemon's output")?,
            () = signals.requested() => {
                preflight::signal(id, "TERM")?;
                None
            }
        };
        let Some(text) = text else { break };
        line(&text);
        if text.starts_with("Ready") {
            line(&format!("process {id}, log in {}", path.display()));
            return Ok(());
        }
    }
    let status = child.wait().await.context("cannot wait for the daemon")?;
    log.seek(SeekFrom::Start(begin)).context("cannot read the log")?;
    let mut said = String::new();
    log.read_to_string(&mut said).context("cannot read the log")?;
    traces.remove_new_files()?;
    match said.lines().last() {
        Some(last) => bail!("{}", last.trim_start_matches("coracle: ")),
        None => bail!("the daemon ended ({status})"),
    }
}
