//! The Python client from PyPI, unchanged, against the cluster.

use anyhow::{Context, Result, ensure};
use coracle_testkit::Cluster;
use std::path::Path;
use std::process::Command;

/// Of the server's minor version.
const CLIENT: &str = "kubernetes==36.*";

/// A virtual environment with the client. Debian packages python3 and python3-venv.
fn environment(directory: &Path) -> Result<()> {
    run(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
    let mut pip = Command::new(directory.join("bin/pip"));
    run(pip.args([
        "install",
        "--quiet",
        "--no-compile",
        "--disable-pip-version-check",
        CLIENT,
    ]))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn programs_work_unchanged() -> Result<()> {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_coracle"))?;
    cluster.load_busybox()?;
    let python = cluster.directory().join("python");
    environment(&python)?;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python_client.py");
    run(cluster
        .network()
        .on_node(&python.join("bin/python").to_string_lossy())
        .env("KUBECONFIG", cluster.kubeconfig())
        .arg(program))
}
