//! Repository chores: `cargo xtask COMMAND`.

mod crate_graph;
mod protobuf;
mod schema;

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const USAGE: &str = "\
cargo xtask COMMAND

  demo [ARGS]     builds Coracle and runs its demo cluster (with sudo where needed)
  up [ARGS]       builds Coracle and runs a cluster in the foreground
  test [ARGS]     runs all tests, end-to-end ones included (with sudo where needed)
  bench NAME      measures in a release build: up, idle, pod-start, endpoint, binary, dataplane, connect,
                  propagation, dns, rollout
  crate-graph     checks that crates only use what ARCHITECTURE.md allows
  schema DIR      regenerates the schema facts from api/openapi-spec/v3 of a Kubernetes source tree
  protobuf DIR    regenerates the protobuf field numbers from staging/src/k8s.io of a Kubernetes source tree
  reference       regenerates docs/reference.md from the flags
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let result = match command.as_str() {
        "demo" | "up" => run_release(&command, &rest),
        "test" => test(&rest),
        "bench" => bench(&rest),
        "crate-graph" => crate_graph::check(),
        "reference" => reference(),
        "schema" => schema::run(&root(), &rest),
        "protobuf" => protobuf::run(&root(), &rest),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

/// Runs a command to its end; a failure names it.
fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    if status.success() {
        Ok(())
    } else {
        bail!("{command:?}: {status}")
    }
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn is_root() -> Result<bool> {
    let id = Command::new("id").arg("-u").output().context("cannot run id")?;
    Ok(String::from_utf8_lossy(&id.stdout).trim() == "0")
}

/// Builds as the caller, runs as root: what a cluster does to network and mounts needs it, a build does not.
fn run_release(subcommand: &str, args: &[String]) -> Result<()> {
    build_release(&["coracle"])?;
    run(as_root("coracle")?.arg(subcommand).args(args))
}

/// Both programs land in one directory: the one that measures looks for the other beside itself.
fn bench(args: &[String]) -> Result<()> {
    build_release(&["coracle", "coracle-bench"])?;
    run(as_root("coracle-bench")?.args(args))
}

fn build_release(packages: &[&str]) -> Result<()> {
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    run(cargo().args(["build", "--release"]).args(packages))
}

/// A program of the release build, run by root.
fn as_root(program: &str) -> Result<Command> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let binary = target.join("release").join(program);
    if is_root()? {
        return Ok(Command::new(binary));
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--preserve-env=KUBECONFIG,HOME").arg(binary);
    Ok(sudo)
}

fn test(args: &[String]) -> Result<()> {
    let mut command = cargo();
    // One run names all that fails.
    command.args(["test", "--workspace", "--no-fail-fast"]).args(args);
    if !is_root()? {
        // Test programs make namespaces and containers; cargo itself stays the caller's.
        let host = format!(
            "CARGO_TARGET_{}_RUNNER",
            host_triple()?.to_uppercase().replace('-', "_")
        );
        command.env(host, "sudo --preserve-env");
    }
    run(&mut command)
}

/// The program prints its own reference, so that it says what the program takes.
fn reference() -> Result<()> {
    let output = cargo()
        .args(["run", "--quiet", "--package", "coracle", "--", "reference"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("coracle reference: {}", output.status);
    }
    std::fs::write(root().join("docs/reference.md"), output.stdout).context("cannot write docs/reference.md")
}

fn host_triple() -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc names no host")
}
