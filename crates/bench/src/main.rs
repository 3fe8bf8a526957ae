//! Measures Coracle as its users meet it: the release binary as a process, in a network of its own, through its API.
//!
//! Called by `cargo xtask bench NAME`. Each figure is one line of JSON: `{"figure","unit","n","min","p50","p99","max"}`.
//! A part that needs the cluster's network from inside runs as a second process there (`inside …`).

mod connect;
mod dataplane;
mod dns;
mod endpoint;
mod figure;
mod footprint;
mod inside;
mod machine;
mod pod_start;
mod propagation;
mod rollout;
mod services;

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = end_with_parent() {
        eprintln!("bench: {error:#}");
        return ExitCode::FAILURE;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench {}: {error:#}", args.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match args {
        ["up"] => footprint::up(&binary()?),
        ["idle"] => footprint::idle(&binary()?),
        ["binary"] => footprint::binary_size(&binary()?),
        ["pod-start"] => inside::measure(&binary()?, "pod-start"),
        ["endpoint"] => inside::measure(&binary()?, "endpoint"),
        ["propagation"] => inside::measure(&binary()?, "propagation"),
        ["connect"] => connect::measure(),
        ["dns"] => dns::measure(),
        ["dataplane"] => dataplane::measure(),
        ["inside", "dataplane-memory"] => dataplane::memory(),
        ["rollout"] => rollout::measure(&binary()?),
        ["inside", "pod-start", kubeconfig] => inside::run(kubeconfig, pod_start::measure),
        ["inside", "endpoint", kubeconfig] => inside::run(kubeconfig, endpoint::measure),
        ["inside", "propagation", kubeconfig] => inside::run(kubeconfig, propagation::measure),
        _ => bail!(
            "one of: up, idle, pod-start, endpoint, binary, dataplane, connect, propagation, dns, rollout"
        ),
    }
}

/// Nobody reads the figures of a measurement whose caller was killed; what it has made goes with it.
fn end_with_parent() -> Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("cannot ask to be told of the end of the caller")?;
    if rustix::process::getppid() != parent {
        bail!("the caller has ended");
    }
    Ok(())
}

/// The binary under test: built into the same directory as this program.
fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let binary = own.with_file_name("coracle");
    if !binary.exists() {
        bail!("{} is not built", binary.display());
    }
    Ok(binary)
}
