//! `coracle`: Kubernetes in one binary. The only crate that sees all others: it reads flags, makes certificates,
//! starts the parts and watches over them.

mod certificates;
mod cli;
mod cluster;
mod commands;
mod config;
mod demo;
mod kubeconfig;

use anyhow::Context;
use clap::Parser;
use cli::{Cli, Command};
use cluster::record::in_force;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    // These must run before any thread exists, and they are no part of the command line that people see.
    match args
        .iter()
        .skip(1)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["internal", "shim", ..] => return coracle_oci::shim_main(),
        ["internal", "demo-db"] => return demo::program::db(),
        ["internal", "demo-api"] => return demo::program::api(),
        _ => {}
    }
    let cli = Cli::parse();
    start_log();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let done = match command {
        Command::Diagnose(args) => return runtime()?.block_on(commands::diagnose::run(args)),
        Command::Reference => {
            print!("{}", commands::reference::markdown());
            Ok(())
        }
        Command::Ip(config) => {
            let ips = cluster::preflight::node_ips(&in_force(config))?;
            println!("{}", ips.first().context("the node has no address")?);
            Ok(())
        }
        Command::Image(args) => runtime()?.block_on(commands::image::run(args)),
        Command::Up(args) => commands::up::run(&args),
        Command::Down(args) => {
            runtime()?.block_on(cluster::teardown::run(&in_force(args.cluster), args.delete))
        }
        Command::Demo(args) => demo::run(args),
        Command::Trace(args) => runtime()?.block_on(commands::trace::run(args)),
        Command::Path(args) => runtime()?.block_on(commands::path::run(args)),
        Command::Status(config) => commands::status::run(&in_force(config)),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Warnings and errors go to standard error; `RUST_LOG` says otherwise.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
