//! Images: archives in, registries with and without credentials, pull policies, and what a failing pull looks like.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{BUSYBOX, Cluster, Finished, eventually, write_busybox};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);
const OPEN: &str = "127.0.0.1:5000";
const CLOSED: &str = "127.0.0.1:5001";

/// Debian's docker-registry on the node's loopback, ended when dropped.
struct Registry(Child);

impl Registry {
    fn start(cluster: &Cluster, address: &str, password: Option<&str>) -> Result<Self> {
        let directory = cluster.directory().join(address.replace(':', "-"));
        std::fs::create_dir_all(&directory)?;
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            directory.display()
        );
        if let Some(password) = password {
            let file = directory.join("htpasswd");
            // Cost 4, the lowest: the registry checks it on every request.
            let made = Command::new("htpasswd")
                .args(["-Bbn", "-C", "4", "user", password])
                .output();
            std::fs::write(
                &file,
                made.context("cannot run htpasswd (Debian package apache2-utils)")?
                    .stdout,
            )?;
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        }
        let file = directory.join("config.yml");
        std::fs::write(&file, config)?;
        let child = cluster
            .network()
            .on_node("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run docker-registry")?;
        let registry = Self(child);
        eventually("the registry listens", SOON, || {
            let url = format!("http://{address}/v2/");
            let done = cluster
                .network()
                .on_node("curl")
                .args(["--silent", &url])
                .output()?;
            ensure!(done.status.success(), "{done:?}");
            Ok(())
        })?;
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn push(cluster: &Cluster, to: &str, credentials: &[&str]) -> Result<()> {
    let archive = cluster.directory().join("push.tar");
    write_busybox(&archive)?;
    let output = cluster
        .network()
        .on_node("skopeo")
        .args(["copy", "--insecure-policy", "--dest-tls-verify=false"])
        .args(credentials)
        .arg(format!("docker-archive:{}", archive.display()))
        .arg(format!("docker://{to}"))
        .output()
        .context("cannot run skopeo")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn run(command: &mut Command) -> Result<Finished> {
    Ok(command.output()?.into())
}

fn pod(name: &str, image: &str, policy: &str, extra: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: c, image: '{image}', imagePullPolicy: {policy}, command: [sleep, '3600']}}]
{extra}"
    )
}

#[test]
fn archives_are_listed_and_removed() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    cluster.load_busybox()?;
    let listed = run(&mut cluster.image_command("ls"))?.stdout;
    assert!(
        listed.starts_with("IMAGE") && listed.contains(BUSYBOX),
        "{listed}"
    );
    // The same image as an OCI layout.
    let layout = cluster.directory().join("layout");
    let done = run(Command::new("skopeo")
        .args(["copy", "--insecure-policy"])
        .arg(format!(
            "docker-archive:{}",
            cluster.directory().join("busybox.tar").display()
        ))
        .arg(format!("oci:{}:example.test/from-layout:2", layout.display())))?;
    ensure!(done.ok, "{}", done.stderr);
    cluster.load_image(&layout)?;
    let listed = run(&mut cluster.image_command("ls"))?.stdout;
    assert!(listed.contains("example.test/from-layout:2"), "{listed}");
    ensure!(run(cluster.image_command("rm").arg(BUSYBOX))?.ok);
    let listed = run(&mut cluster.image_command("ls"))?.stdout;
    assert!(!listed.contains(BUSYBOX), "{listed}");
    let missing = run(cluster.image_command("rm").arg(BUSYBOX))?;
    assert!(
        !missing.ok && missing.stderr.contains("no image"),
        "{}",
        missing.stderr
    );
    let broken = cluster.directory().join("broken.tar");
    std::fs::write(&broken, "no archive")?;
    let refused = run(cluster.image_command("load").arg(&broken))?;
    assert!(
        !refused.ok && refused.stderr.contains("broken.tar"),
        "{}",
        refused.stderr
    );
    Ok(())
}

#[test]
fn registries_with_and_without_credentials() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    let _open = Registry::start(&cluster, OPEN, None)?;
    let _closed = Registry::start(&cluster, CLOSED, Some("secret"))?;
    push(&cluster, &format!("{OPEN}/tools/busybox:1"), &[])?;
    push(
        &cluster,
        &format!("{CLOSED}/busybox:1"),
        &["--dest-creds", "user:secret"],
    )?;

    let pulled = run(cluster
        .image_command("pull")
        .arg(format!("{OPEN}/tools/busybox:1")))?;
    ensure!(pulled.ok, "{}", pulled.stderr);
    let refused = run(cluster.image_command("pull").arg(format!("{CLOSED}/busybox:1")))?;
    assert!(!refused.ok, "{}", refused.stdout);
    let pulled = run(cluster
        .image_command("pull")
        .args(["--credentials", "user:secret"])
        .arg(format!("{CLOSED}/busybox:1")))?;
    ensure!(pulled.ok, "{}", pulled.stderr);
    ensure!(run(cluster.image_command("rm").arg(format!("{CLOSED}/busybox:1")))?.ok);

    // Pods: Always pulls again; a Secret opens the closed registry; without it the reason is told.
    cluster.apply(&pod("always", &format!("{OPEN}/tools/busybox:1"), "Always", ""))?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/always", "--timeout=60s"])?;
    cluster.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "key",
        &format!("--docker-server={CLOSED}"),
        "--docker-username=user",
        "--docker-password=secret",
    ])?;
    let image = format!("{CLOSED}/busybox:1");
    cluster.apply(&pod("without", &image, "Always", ""))?;
    cluster.apply(&pod(
        "with",
        &image,
        "Always",
        "  imagePullSecrets: [{name: key}]\n",
    ))?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/with", "--timeout=60s"])?;
    let waits = |name: &str, reasons: &[&str]| {
        eventually(&format!("{name} waits with {reasons:?}"), SOON, || {
            let pod = cluster.get_json(&["pod", name])?;
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            ensure!(
                reasons.iter().any(|reason| waiting["reason"] == *reason),
                "{}",
                pod["status"]
            );
            Ok(())
        })
    };
    waits("without", &["ErrImagePull", "ImagePullBackOff"])?;
    waits("without", &["ImagePullBackOff"])?;
    cluster.apply(&pod("missing", &format!("{OPEN}/nothing:1"), "IfNotPresent", ""))?;
    waits("missing", &["ErrImagePull", "ImagePullBackOff"])?;
    cluster.apply(&pod("never", &format!("{OPEN}/nothing:1"), "Never", ""))?;
    waits("never", &["ErrImageNeverPull"])?;
    let table = cluster.kubectl(&["get", "pod", "never"])?;
    assert!(table.contains("ErrImageNeverPull"), "{table}");
    eventually("the events tell", SOON, || {
        let described = cluster.kubectl(&["describe", "pod", "missing"])?;
        ensure!(
            described.contains(&format!("Pulling image \"{OPEN}/nothing:1\"")),
            "{described}"
        );
        ensure!(described.contains("Failed to pull image"), "{described}");
        Ok(())
    })
}
