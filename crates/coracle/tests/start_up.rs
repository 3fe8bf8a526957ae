//! `coracle up` where it cannot work: one line that says why, and nothing left behind.

use anyhow::Result;
use coracle_testkit::{NODE_IP, Network};
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");

fn up(mut command: Command, directory: &std::path::Path, extra: &[&str]) -> Result<(bool, String)> {
    let output = command
        .args(["up", "--node-ip", NODE_IP, "--node-name", "node-1", "--data-dir"])
        .arg(directory.join("data"))
        .arg("--run-dir")
        .arg(directory.join("run"))
        .arg("--kubeconfig")
        .arg(directory.join("kubeconfig"))
        .args(extra)
        .output()?;
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

fn is_empty(directory: &std::path::Path) -> Result<bool> {
    Ok(std::fs::read_dir(directory)?.next().is_none())
}

#[test]
fn a_taken_port_is_said_in_one_line() -> Result<()> {
    let network = Network::new()?;
    let directory = tempfile::tempdir()?;
    let mut holder = network
        .on_node("busybox")
        .args(["nc", "-l", "-p", "6443"])
        .spawn()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    let outcome = up(network.on_node(BINARY), directory.path(), &[]);
    holder.kill()?;
    holder.wait()?;
    let (ok, stderr) = outcome?;
    assert!(!ok);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("6443") && stderr.contains("in use"), "{stderr}");
    assert!(is_empty(directory.path())?);
    Ok(())
}

#[test]
fn without_root_it_says_so_and_touches_nothing() -> Result<()> {
    let network = Network::new()?;
    let directory = tempfile::tempdir()?;
    let mut command = network.on_node("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", BINARY]);
    let (ok, stderr) = up(command, directory.path(), &[])?;
    assert!(!ok);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("root"), "{stderr}");
    assert!(is_empty(directory.path())?);
    Ok(())
}

#[test]
fn wrong_flags_are_named() -> Result<()> {
    let network = Network::new()?;
    let directory = tempfile::tempdir()?;
    for (flags, message) in [
        (["--cluster-cidr", "10.96.0.0/16"], "overlap"),
        (["--cluster-dns", "192.0.2.1"], "--cluster-dns"),
    ] {
        let (ok, stderr) = up(network.on_node(BINARY), directory.path(), &flags)?;
        assert!(!ok && stderr.contains(message), "{stderr}");
    }
    assert!(is_empty(directory.path())?);
    Ok(())
}
