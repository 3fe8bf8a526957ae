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

#[test]
fn a_failure_late_in_the_start_takes_everything_back() -> Result<()> {
    let network = Network::new()?;
    let directory = tempfile::tempdir()?;
    let mut holder = network
        .on_node("busybox")
        .args(["nc", "-l", "-p", "53"])
        .spawn()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    let kernel = || -> Result<Vec<String>> {
        [
            "ip -o -4 address",
            "ip -4 route show table all type unicast",
            "nft list tables",
        ]
        .iter()
        .map(|line| {
            let mut words = line.split(' ');
            let mut command = network.on_node(words.next().unwrap_or_default());
            Ok(String::from_utf8(command.args(words).output()?.stdout)?)
        })
        .collect()
    };
    let before = kernel()?;
    let outcome = up(network.on_node(BINARY), directory.path(), &[]);
    let after = kernel();
    holder.kill()?;
    holder.wait()?;
    let (ok, stderr) = outcome?;
    assert!(!ok);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("10.96.0.10:53"), "{stderr}");
    assert_eq!(before, after?);
    assert!(is_empty(directory.path())?);
    Ok(())
}

#[test]
fn directories_that_cannot_be_written_are_named() -> Result<()> {
    let network = Network::new()?;
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("file"), "")?;
    let file = directory.path().join("file").to_string_lossy().into_owned();
    let below = format!("{file}/below");
    for flags in [
        ["--data-dir", "/proc/coracle"],
        ["--run-dir", "/proc/coracle"],
        ["--data-dir", &file],
        ["--data-dir", &below],
    ] {
        let mut command = network.on_node(BINARY);
        command.args(["up", "--node-ip", NODE_IP, "--kubeconfig"]);
        command.arg(directory.path().join("kubeconfig")).args(flags);
        let other = if flags[0] == "--data-dir" {
            "--run-dir"
        } else {
            "--data-dir"
        };
        let output = command.arg(other).arg(directory.path().join("other")).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(flags[1]), "{stderr}");
        assert!(!directory.path().join("other").exists(), "{flags:?}");
    }
    Ok(())
}

#[test]
fn a_damaged_store_is_said_and_kept() -> Result<()> {
    let network = Network::new()?;
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    std::fs::create_dir(&data)?;
    let damaged = vec![0x5a; 1 << 20];
    std::fs::write(data.join("store.redb"), &damaged)?;
    for flags in [&[][..], &["--detach"]] {
        let (ok, stderr) = up(network.on_node(BINARY), directory.path(), flags)?;
        assert!(!ok);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("store.redb"), "{stderr}");
        assert_eq!(std::fs::read(data.join("store.redb"))?, damaged);
        assert_eq!(std::fs::read_dir(&data)?.count(), 1, "nothing else is left");
        assert!(!directory.path().join("run").exists());
    }
    Ok(())
}

#[test]
fn a_kernel_without_overlayfs_is_told_so() -> Result<()> {
    let network = Network::new()?;
    let directory = tempfile::tempdir()?;
    let features = directory.path().join("features");
    std::fs::write(&features, "nodev\ttmpfs\n\text4\n")?;
    let empty = directory.path().join("empty");
    std::fs::create_dir(&empty)?;
    // Another kernel's /proc/filesystems, and none of its modules, in a mount namespace of their own.
    let script = format!(
        "mount --bind {} /proc/filesystems; [ ! -d /lib/modules ] || mount --bind {} /lib/modules; exec \"$@\"",
        features.display(),
        empty.display()
    );
    let mut command = network.on_node("unshare");
    command.args(["-m", "sh", "-c", &script, "sh", BINARY]);
    let (ok, stderr) = up(command, directory.path(), &[])?;
    assert!(!ok);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("overlayfs"), "{stderr}");
    assert!(!directory.path().join("data").exists());
    Ok(())
}
