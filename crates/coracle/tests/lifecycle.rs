//! The life of a cluster as its user meets it: up, status, down, in every order, and after every kind of end.

use anyhow::{Context, Result, bail, ensure};
use coracle_testkit::{BUSYBOX, Cluster, Finished, NODE_IP, Network, eventually};
use std::borrow::BorrowMut;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const POD_READY: Duration = Duration::from_secs(30);

fn run(mut command: impl BorrowMut<Command>) -> Result<Finished> {
    Ok(command.borrow_mut().output()?.into())
}

/// What a cluster could leave in the kernel: links, addresses, routes, rules; cgroups and mounts named after its
/// directory.
#[derive(Debug, PartialEq, Eq)]
struct Kernel {
    network: Vec<String>,
    cgroups: BTreeSet<PathBuf>,
    mounts: Vec<String>,
    processes: Vec<(u32, String)>,
}

impl Kernel {
    fn look(network: &Network, directory: &Path) -> Result<Self> {
        let mut said = Vec::new();
        for line in [
            "ip -o -4 address",
            "ip -4 route show table all type unicast",
            "nft list tables",
        ] {
            let mut words = line.split(' ');
            let mut command = network.on_node(words.next().context("a program")?);
            command.args(words);
            let done = run(command)?;
            ensure!(done.ok, "{line}: {}", done.stderr);
            said.push(done.stdout);
        }
        let mut devices = network.on_node("cat");
        devices.arg("/proc/net/dev");
        // The other columns count packets.
        let names = run(devices)?.stdout;
        let names = names
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0.to_owned()));
        said.extend(names);
        let name = directory
            .to_str()
            .context("a name")?
            .trim_matches('/')
            .replace('/', "-");
        let mut cgroups = BTreeSet::new();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
            for group in std::fs::read_dir(hierarchy.path())
                .into_iter()
                .flatten()
                .flatten()
            {
                if group.file_name().to_string_lossy().contains(&name) {
                    cgroups.insert(group.path());
                }
            }
        }
        let text = directory.to_string_lossy();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let mounts = mounts.lines().filter(|line| line.contains(&*text));
        Ok(Self {
            network: said,
            cgroups,
            mounts: mounts.map(str::to_owned).collect(),
            processes: processes_in(directory),
        })
    }
}

/// The processes, but this one, that were told of a directory or have a file of it open, as shims have their log; and
/// their command lines.
fn processes_in(directory: &Path) -> Vec<(u32, String)> {
    let text = directory.to_string_lossy();
    let process = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let files = std::fs::read_dir(entry.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let mut files = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        let is_there = line.contains(&*text) || files.any(|file| file.starts_with(directory));
        (is_there && pid != std::process::id()).then_some((pid, line))
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(process).collect()
}

fn run_pod(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["run", name, "--image", BUSYBOX, "--", "sleep", "3600"])?;
    ready(cluster, name)
}

fn ready(cluster: &Cluster, name: &str) -> Result<()> {
    let pod = format!("pod/{name}");
    cluster
        .kubectl(&["wait", "--for=condition=Ready", "--timeout=30s", &pod])
        .map(drop)
}

#[test]
fn up_and_down_in_every_order() -> Result<()> {
    let mut cluster = Cluster::prepare(BINARY, &[])?;
    let before = Kernel::look(cluster.network(), cluster.directory())?;

    let down = run(cluster.command("down"))?;
    ensure!(down.ok && down.stdout.contains("no cluster"), "{down:?}");
    let status = run(cluster.command("status"))?;
    ensure!(
        !status.ok && status.stderr.contains("no cluster in"),
        "{status:?}"
    );

    let mut detached = cluster.command("up");
    detached.arg("--detach");
    let begin = run(detached)?;
    ensure!(begin.ok && begin.stdout.contains("Ready"), "{begin:?}");
    let status = run(cluster.command("status"))?;
    ensure!(
        status.ok && status.stdout.starts_with("up: process"),
        "{status:?}"
    );
    let ip = run(cluster.command("ip"))?;
    ensure!(ip.stdout.trim() == NODE_IP, "{ip:?}");

    for more in [&[][..], &["--detach"], &["--secure-port", "7443"]] {
        let mut second = cluster.command("up");
        second.args(more);
        let second = run(second)?;
        ensure!(!second.ok && second.stderr.lines().count() == 1, "{second:?}");
        ensure!(
            second.stderr.contains("already up in") && second.stderr.contains("(process "),
            "{second:?}"
        );
    }

    cluster.load_busybox()?;
    run_pod(&cluster, "one")?;
    let down = run(cluster.command("down"))?;
    ensure!(down.ok && down.stderr.is_empty(), "{down:?}");
    let during = Kernel::look(cluster.network(), cluster.directory())?;
    assert_eq!(before, during, "down leaves nothing in the kernel");
    let status = run(cluster.command("status"))?;
    ensure!(!status.ok && status.stderr.contains("not up"), "{status:?}");

    cluster.up()?;
    ready(&cluster, "one").context("the Pod comes back with its cluster")?;
    cluster.interrupt()?;
    delete_and_look(&cluster, &before)
}

/// `down --delete`, after which only what the test itself has made is there.
fn delete_and_look(cluster: &Cluster, before: &Kernel) -> Result<()> {
    let mut down = cluster.command("down");
    down.arg("--delete");
    let down = run(down)?;
    ensure!(down.ok && down.stderr.is_empty(), "{down:?}");
    assert_eq!(before, &Kernel::look(cluster.network(), cluster.directory())?);
    for name in ["data", "run"] {
        ensure!(!cluster.directory().join(name).exists(), "{name} is left");
    }
    let contexts = cluster.kubectl(&["config", "get-contexts", "--output=name"])?;
    ensure!(contexts.is_empty(), "{contexts}");
    let again = run(cluster.command("down"))?;
    ensure!(again.ok && again.stderr.is_empty(), "{again:?}");
    Ok(())
}

#[test]
fn down_after_everything_was_killed() -> Result<()> {
    let mut cluster = Cluster::prepare(BINARY, &[])?;
    let before = Kernel::look(cluster.network(), cluster.directory())?;
    cluster.up()?;
    cluster.load_busybox()?;
    run_pod(&cluster, "one")?;
    cluster.kill()?;
    kill_all_in(&cluster.directory().join("data"))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let ours = cluster.directory().to_string_lossy().into_owned();
    ensure!(mounts.contains(&ours), "mounts are left to be taken away");
    // A pod that was being made when the machine lost power: mounts, and no record.
    for pod in std::fs::read_dir(cluster.directory().join("data/containers/pods"))? {
        std::fs::remove_file(pod?.path().join("pod.json"))?;
    }
    cluster.up().context("up takes over from an unclean end")?;
    eventually("the Pod runs again", POD_READY, || ready(&cluster, "one"))?;
    cluster.kill()?;
    kill_all_in(&cluster.directory().join("data"))?;
    delete_and_look(&cluster, &before)
}

/// This process is killed the hard way with a cluster up: whoever runs tests and figures does that to them.
#[test]
fn a_killed_test_leaves_no_cluster() -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            "cluster_whose_test_is_killed",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let told = |line: String| Some((line.split_once("cluster in ")?.1.to_owned(), child.id()));
    let (directory, id) = lines.map_while(Result::ok).find_map(told).context("a cluster")?;
    child.kill()?;
    child.wait()?;
    let directory = Path::new(&directory);
    eventually("nothing is left", POD_READY, || {
        let left = processes_in(directory);
        ensure!(left.is_empty() && !directory.exists(), "{left:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(!mounts.contains(&*directory.to_string_lossy()), "{mounts}");
        ensure!(!mounts.contains(&format!("/run/netns/cn-{id}-")), "{mounts}");
        Ok(())
    })
}

#[test]
#[ignore = "a part of another test, which runs it as a process of its own"]
fn cluster_whose_test_is_killed() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    cluster.load_busybox()?;
    run_pod(&cluster, "one")?;
    println!("cluster in {}", cluster.directory().display());
    // Until it is killed, or whoever waits for that is.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// SIGKILL to the processes of a directory: the shims. Waits for their end.
fn kill_all_in(directory: &Path) -> Result<()> {
    let processes = processes_in(directory);
    ensure!(!processes.is_empty(), "there is a shim");
    for (pid, _) in processes {
        Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
    }
    eventually("their end", POD_READY, || {
        let left = processes_in(directory);
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

#[test]
fn rules_of_somebody_else_under_our_name_are_replaced() -> Result<()> {
    let mut cluster = Cluster::prepare(BINARY, &[])?;
    let mut nft = cluster.network().on_node("nft");
    nft.arg(
        "table ip coracle {
            flags dormant
            comment \"another\"
            chain theirs { type filter hook input priority 0; }
        }",
    );
    ensure!(nft.status()?.success(), "nft (Debian package nftables)");
    cluster.up()?;
    let mut nft = cluster.network().on_node("nft");
    nft.args(["list", "table", "ip", "coracle"]);
    let rules = run(nft)?;
    ensure!(
        rules.ok && !rules.stdout.contains("theirs") && rules.stdout.contains("map"),
        "{rules:?}"
    );
    Ok(())
}

#[test]
fn watches_end_cleanly_and_soon() -> Result<()> {
    let mut cluster = Cluster::start(BINARY)?;
    let mut watch = cluster
        .kubectl_command(&["get", "namespaces", "--watch", "--output=name"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().context("piped")?).lines();
    lines.next().context("the watch has begun")??;
    let begin = Instant::now();
    cluster.interrupt()?;
    let took = begin.elapsed();
    let ended: Finished = watch.wait_with_output()?.into();
    // kubectl watches to the end of what it is sent: an end that was cut off is an error.
    ensure!(ended.ok && ended.stderr.is_empty(), "{ended:?}");
    ensure!(took < Duration::from_secs(3), "stopping took {took:?}");
    Ok(())
}

#[test]
fn a_signal_while_starting_leaves_nothing() -> Result<()> {
    let cluster = Cluster::prepare(BINARY, &[])?;
    let before = Kernel::look(cluster.network(), cluster.directory())?;
    // Each line of progress is another moment of the start.
    for (moment, signal) in ["-INT", "-TERM", "-INT", "-TERM", "-INT"].iter().enumerate() {
        let ended = eventually("a signal before the cluster is ready", POD_READY, || {
            let ended = signal_at(&cluster, moment, signal)?;
            if ended.ok {
                run(cluster.command("down").arg("--delete"))?;
                bail!("the cluster was quicker");
            }
            Ok(ended)
        })?;
        ensure!(
            ended.stderr.trim() == "coracle: stopped before it was ready",
            "{moment}: {ended:?}"
        );
        assert_eq!(
            before,
            Kernel::look(cluster.network(), cluster.directory())?,
            "{moment}"
        );
        for name in ["data", "run"] {
            ensure!(
                !cluster.directory().join(name).exists(),
                "{moment}: {name} is left"
            );
        }
    }
    Ok(())
}

/// `coracle up` that gets a signal when it has said so many lines.
fn signal_at(cluster: &Cluster, moment: usize, signal: &str) -> Result<Finished> {
    let mut child = cluster
        .command("up")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    for _ in 0..=moment {
        lines.next().context("a line of progress")??;
    }
    let pid = child.id().to_string();
    ensure!(Command::new("kill").args([signal, &*pid]).status()?.success());
    lines.for_each(drop);
    Ok(child.wait_with_output()?.into())
}

#[test]
fn a_machine_without_a_route_runs_a_cluster() -> Result<()> {
    for (line, expected) in [
        ("route delete default", NODE_IP),
        ("link delete eth0", "10.244.0.1"),
    ] {
        let network = Network::new()?;
        let mut ip = network.on_node("ip");
        ensure!(ip.args(line.split(' ')).status()?.success());
        let directory = tempfile::tempdir()?;
        let coracle = |words: &[&str]| {
            let mut command = network.on_node(BINARY);
            command
                .args(words)
                .arg("--data-dir")
                .arg(directory.path().join("data"));
            command.arg("--run-dir").arg(directory.path().join("run"));
            command
                .arg("--kubeconfig")
                .arg(directory.path().join("kubeconfig"));
            run(command)
        };
        let said = coracle(&["ip"])?;
        ensure!(said.stdout.trim() == expected, "{line}: {said:?}");
        let up = coracle(&["up", "--detach"])?;
        let down = coracle(&["down", "--delete"])?;
        ensure!(up.ok && up.stdout.contains(expected), "{line}: {up:?}");
        ensure!(down.ok, "{line}: {down:?}");
    }
    Ok(())
}

#[test]
fn down_and_status_know_the_flags_of_up() -> Result<()> {
    let network = Network::new()?;
    let directory = tempfile::tempdir()?;
    let before = Kernel::look(&network, directory.path())?;
    let coracle = |words: &[&str]| {
        let mut command = network.on_node(BINARY);
        command
            .args(words)
            .arg("--data-dir")
            .arg(directory.path().join("data"));
        command.env("HOME", directory.path());
        command
    };
    let mut up = coracle(&[
        "up",
        "--detach",
        "--secure-port",
        "7443",
        "--cluster-cidr",
        "10.50.0.0/16",
    ]);
    up.args(["--service-cidr", "10.60.0.0/16", "--kubeconfig"]);
    up.arg(directory.path().join("kubeconfig"));
    up.arg("--run-dir").arg(directory.path().join("run"));
    let up = run(up)?;
    let status = run(coracle(&["status"]))?;
    let down = run(coracle(&["down", "--delete"]))?;
    ensure!(up.ok, "{up:?}");
    ensure!(status.ok && status.stdout.contains("7443"), "{status:?}");
    ensure!(down.ok && down.stderr.is_empty(), "{down:?}");
    assert_eq!(before, Kernel::look(&network, directory.path())?);
    let kubeconfig = std::fs::read_to_string(directory.path().join("kubeconfig"))?;
    ensure!(!kubeconfig.contains("7443"), "{kubeconfig}");
    for name in ["data", "run"] {
        ensure!(!directory.path().join(name).exists(), "{name} is left");
    }
    Ok(())
}
