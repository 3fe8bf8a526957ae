//! One cluster: `coracle up` as a child process.

use crate::guard::Guard;
use crate::network::{NODE_IP, Network};
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a cluster may take to be ready on a loaded machine; what is measured is measured elsewhere.
const READY: Duration = Duration::from_secs(60);
/// How long `coracle up` may take to end after a signal.
const STOP: Duration = Duration::from_secs(30);

/// A running cluster, its network and its directory.
pub struct Cluster {
    binary: PathBuf,
    network: Network,
    directory: tempfile::TempDir,
    child: Option<Child>,
    extra: Vec<String>,
    /// Last: what is dropped before it may still be interrupted.
    _guard: Guard,
}

/// What a command said.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Whether it ended with 0.
    pub ok: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Cluster {
    /// Starts a cluster with this binary and waits for `Ready`.
    pub fn start(binary: &str) -> Result<Self> {
        Self::start_with(binary, &[])
    }

    /// Starts a cluster with more flags.
    pub fn start_with(binary: &str, extra: &[&str]) -> Result<Self> {
        let mut cluster = Self::prepare(binary, extra)?;
        cluster.up()?;
        Ok(cluster)
    }

    /// Network and directory of a cluster that has yet to start.
    pub fn prepare(binary: &str, extra: &[&str]) -> Result<Self> {
        let network = Network::new()?;
        let directory = tempfile::Builder::new().prefix("ct").tempdir()?;
        let guard = Guard::of_cluster(directory.path(), binary.as_ref(), network.namespaces())?;
        Ok(Self {
            binary: binary.into(),
            network,
            directory,
            child: None,
            extra: extra.iter().map(ToString::to_string).collect(),
            _guard: guard,
        })
    }

    /// Starts `coracle up` on the cluster's directory and waits for `Ready`. Returns how long that took.
    pub fn up(&mut self) -> Result<Duration> {
        if self.child.is_some() {
            bail!("the cluster is already up");
        }
        let begin = Instant::now();
        let mut child = self
            .command("up")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.log("stderr")?)
            .spawn()
            .context("cannot start coracle up (nsenter: Debian package util-linux)")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        self.child = Some(child);
        let mut log = self.log("stdout")?;
        let (ready, is_ready) = mpsc::channel();
        // Reads to the end: a child whose pipe nobody reads would stop.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = writeln!(log, "{line}");
                if line.trim_start().starts_with("Ready") {
                    let _ = ready.send(());
                }
            }
        });
        match is_ready.recv_timeout(READY) {
            Ok(()) => Ok(begin.elapsed()),
            Err(_) => bail!("coracle up did not become ready:\n{}", self.logs()),
        }
    }

    /// Other flags from the next start on, in place of those that it was made with.
    pub fn set_flags(&mut self, extra: &[&str]) {
        self.extra = extra.iter().map(ToString::to_string).collect();
    }

    /// The arguments that make a subcommand speak of this cluster.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = self.network.on_node(&self.binary.to_string_lossy());
        let directory = self.directory.path();
        command
            .arg(subcommand)
            .arg("--data-dir")
            .arg(directory.join("data"))
            .arg("--run-dir")
            .arg(directory.join("run"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(["--node-name", "node-1"])
            .args(&self.extra);
        if !self.extra.iter().any(|flag| flag == "--node-ip") {
            command.args(["--node-ip", NODE_IP]);
        }
        command
    }

    /// The binary under test, on the node's network.
    pub fn coracle(&self) -> Command {
        self.network.on_node(&self.binary.to_string_lossy())
    }

    /// The cluster's network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The cluster's directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The kubeconfig that `coracle up` wrote.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// A kubectl command for this cluster, from the node's network.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.network.on_node("kubectl");
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.directory.path())
            .args(args);
        command.stdin(Stdio::null());
        command
    }

    /// Runs kubectl whatever comes of it.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<Finished> {
        let output = self
            .kubectl_command(args)
            .output()
            .context("cannot run kubectl (Debian package kubernetes-client)")?;
        Ok(output.into())
    }

    /// Runs kubectl and returns what it printed; a failure is an error.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let done = self.try_kubectl(args)?;
        if done.ok {
            Ok(done.stdout)
        } else {
            Err(anyhow!(
                "kubectl {}: {}{}",
                args.join(" "),
                done.stdout,
                done.stderr
            ))
        }
    }

    /// Runs kubectl with a manifest on standard input.
    pub fn kubectl_stdin(&self, args: &[&str], input: &str) -> Result<Finished> {
        let mut child = self
            .kubectl_command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        Ok(child.wait_with_output()?.into())
    }

    /// Applies a manifest given as text.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let done = self.kubectl_stdin(&["apply", "-f", "-"], manifest)?;
        if done.ok {
            Ok(done.stdout)
        } else {
            Err(anyhow!("kubectl apply: {}{}", done.stdout, done.stderr))
        }
    }

    /// `kubectl get … -o json`, parsed.
    pub fn get_json(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["get"];
        all.extend(args);
        all.extend(["-o", "json"]);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// Loads the demo's images, so that Pods have something to run.
    pub fn load_demo_images(&self) -> Result<()> {
        succeed(&mut self.image_command("demo")).map(drop)
    }

    /// Loads the busybox image.
    pub fn load_busybox(&self) -> Result<()> {
        let archive = self.directory.path().join("busybox.tar");
        crate::image::write_busybox(&archive)?;
        self.load_image(&archive)
    }

    /// `coracle image load`.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        succeed(self.image_command("load").arg(archive)).map(drop)
    }

    /// `coracle image SUBCOMMAND` for this cluster.
    pub fn image_command(&self, subcommand: &str) -> Command {
        let mut command = self.coracle();
        command
            .args(["image", subcommand, "--data-dir"])
            .arg(self.directory.path().join("data"));
        command
    }

    /// SIGKILL to the daemon: what a crash looks like.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the cluster is not up")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGINT to the daemon: what Ctrl-C does. Waits for its end.
    pub fn interrupt(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the cluster is not up")?;
        signal(child.id(), "INT")?;
        let deadline = Instant::now() + STOP;
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("coracle up ended with {status}:\n{}", self.logs()),
                None if Instant::now() > deadline => {
                    child.kill()?;
                    child.wait()?;
                    bail!("coracle up did not end after SIGINT:\n{}", self.logs());
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// What the daemon printed so far.
    pub fn logs(&self) -> String {
        ["stdout", "stderr"]
            .iter()
            .filter_map(|name| std::fs::read_to_string(self.directory.path().join(name)).ok())
            .collect()
    }

    fn log(&self, name: &str) -> Result<File> {
        let path = self.directory.path().join(name);
        Ok(File::options().create(true).append(true).open(path)?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.logs();
            let tail: Vec<&str> = logs.lines().rev().take(60).collect();
            eprintln!("--- last lines of coracle up ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.command("down").arg("--delete").output();
    }
}

fn succeed(command: &mut Command) -> Result<Finished> {
    let done: Finished = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?
        .into();
    if done.ok {
        Ok(done)
    } else {
        bail!("{command:?}: {}{}", done.stdout, done.stderr)
    }
}

fn signal(pid: u32, signal: &str) -> Result<()> {
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(pid.to_string())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        bail!("kill -{signal} {pid}: {status}")
    }
}

/// Tries until it holds; the last failure is the error. For what a cluster does in its own time.
pub fn eventually<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("{what}: not within {limit:?}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
