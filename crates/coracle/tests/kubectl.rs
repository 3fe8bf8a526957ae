//! The verbs of stock kubectl, one after another.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{BUSYBOX, Cluster, NODE_IP, eventually};
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

fn web(image_command: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{tier: front}}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {{name: web, image: {BUSYBOX}, command: [sh, -c, '{image_command}'], ports: [{{containerPort: 80}}]}}
"
    )
}

fn start() -> Result<Cluster> {
    let cluster = Cluster::start(BINARY)?;
    cluster.load_busybox()?;
    Ok(cluster)
}

fn rolled_out(cluster: &Cluster) -> Result<()> {
    cluster
        .kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])
        .map(drop)
}

#[test]
fn cluster_information() -> Result<()> {
    let cluster = start()?;
    let version = cluster.kubectl(&["version"])?;
    // `Server Version: v1.36.…`, or the whole structure from an older kubectl.
    let server = version.lines().find(|line| line.starts_with("Server Version"));
    assert!(server.is_some_and(|line| line.contains("v1.36.")), "{version}");
    let info = cluster.kubectl(&["cluster-info"])?;
    assert!(
        info.contains("Kubernetes control plane") && info.contains("is running at"),
        "{info}"
    );
    let resources = cluster.kubectl(&["api-resources"])?;
    for row in [
        "pods                                po",
        "services                            svc",
        "deployments                         deploy",
        "endpointslices",
        "customresourcedefinitions",
        "horizontalpodautoscalers",
    ] {
        assert!(resources.contains(row), "{row} in\n{resources}");
    }
    let versions = cluster.kubectl(&["api-versions"])?;
    assert!(
        versions.lines().any(|v| v == "apps/v1") && versions.lines().any(|v| v == "v1"),
        "{versions}"
    );
    let explained = cluster.kubectl(&["explain", "pod.spec.containers"])?;
    assert!(
        explained.starts_with("KIND:") && explained.contains("imagePullPolicy"),
        "{explained}"
    );
    assert_eq!(
        cluster.kubectl(&["auth", "can-i", "create", "pods"])?.trim(),
        "yes"
    );
    let node = cluster.kubectl(&["describe", "node", "node-1"])?;
    assert!(
        node.contains("KubeletReady") && node.contains("10.244.0.0/24"),
        "{node}"
    );
    Ok(())
}

#[test]
fn get_in_every_form() -> Result<()> {
    let cluster = start()?;
    cluster.apply(&web("sleep 3600"))?;
    rolled_out(&cluster)?;
    let wide = cluster.kubectl(&["get", "pods", "-o", "wide"])?;
    let header: Vec<&str> = wide
        .lines()
        .next()
        .context("a header")?
        .split_whitespace()
        .collect();
    assert_eq!(
        header[..7],
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    );
    assert_eq!(
        cluster.kubectl(&["get", "deploy", "web", "-o", "name"])?,
        "deployment.apps/web\n"
    );
    assert_eq!(
        cluster.kubectl(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"])?,
        "2"
    );
    assert_eq!(
        cluster.kubectl(&[
            "get",
            "deploy",
            "web",
            "-o",
            "custom-columns=N:.metadata.name,R:.spec.replicas"
        ])?,
        "N     R\nweb   2\n"
    );
    let yaml = cluster.kubectl(&["get", "deploy", "web", "-o", "yaml"])?;
    assert!(
        yaml.contains("progressDeadlineSeconds: 600") && yaml.contains("maxSurge: 25%"),
        "{yaml}"
    );
    assert_eq!(
        cluster.kubectl(&["get", "pods", "-l", "app=other", "-o", "name"])?,
        ""
    );
    assert_eq!(
        cluster
            .kubectl(&["get", "pods", "-l", "app in (web)", "-o", "name"])?
            .lines()
            .count(),
        2
    );
    let running = [
        "get",
        "pods",
        "--field-selector=status.phase=Running",
        "-o",
        "name",
    ];
    assert_eq!(cluster.kubectl(&running)?.lines().count(), 2);
    assert!(cluster.kubectl(&["get", "pods", "-A"])?.starts_with("NAMESPACE"));
    let sorted = cluster.kubectl(&["get", "ns", "--sort-by=.metadata.name", "-o", "name"])?;
    let names: Vec<&str> = sorted.lines().collect();
    let mut expected = names.clone();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let events = cluster.kubectl(&["get", "events", "--sort-by=.lastTimestamp"])?;
    assert!(events.contains("Successfully assigned default/web-"), "{events}");
    let described = cluster.kubectl(&["describe", "pods"])?;
    for line in [
        "Container image \"coracle.local/busybox:1.0\" already present on machine",
        "Container started",
        "QoS Class:",
    ] {
        assert!(described.contains(line), "{line} in\n{described}");
    }
    Ok(())
}

#[test]
fn changes_of_every_kind() -> Result<()> {
    let cluster = start()?;
    cluster.apply(&web("sleep 3600"))?;
    rolled_out(&cluster)?;
    cluster.kubectl(&["label", "deploy/web", "color=blue"])?;
    cluster.kubectl(&["annotate", "deploy/web", "note=hello"])?;
    assert_eq!(
        cluster.kubectl(&["get", "deploy", "-l", "color=blue", "-o", "name"])?,
        "deployment.apps/web\n"
    );
    for (kind, patch) in [
        (
            "strategic",
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}"#,
        ),
        ("merge", r#"{"spec":{"revisionHistoryLimit":5}}"#),
        ("json", r#"[{"op":"replace","path":"/spec/replicas","value":3}]"#),
    ] {
        cluster.kubectl(&["patch", "deploy", "web", "--type", kind, "-p", patch])?;
    }
    rolled_out(&cluster)?;
    let deploy = cluster.get_json(&["deploy", "web"])?;
    assert_eq!(deploy["spec"]["replicas"], 3);
    assert_eq!(deploy["spec"]["revisionHistoryLimit"], 5);
    let container = &deploy["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["env"][0]["name"], &container["image"]),
        (&"A".into(), &BUSYBOX.into())
    );

    cluster.kubectl(&["set", "env", "deploy/web", "A=2"])?;
    rolled_out(&cluster)?;
    let history = cluster.kubectl(&["rollout", "history", "deploy/web"])?;
    assert!(history.contains("3 "), "{history}");
    cluster.kubectl(&["rollout", "undo", "deploy/web"])?;
    rolled_out(&cluster)?;
    let env = "jsonpath={.spec.template.spec.containers[0].env[0].value}";
    assert_eq!(cluster.kubectl(&["get", "deploy", "web", "-o", env])?, "1");
    cluster.kubectl(&["rollout", "pause", "deploy/web"])?;
    cluster.kubectl(&["rollout", "resume", "deploy/web"])?;

    // Apply: a field that leaves the manifest leaves the object; one set by others stays.
    let done = cluster.kubectl_stdin(&["apply", "-f", "-"], &web("sleep 3601"))?;
    assert_eq!(done.stdout, "deployment.apps/web configured\n", "{}", done.stderr);
    assert_eq!(
        cluster.kubectl(&["get", "deploy", "web", "-o", "jsonpath={.metadata.labels.color}"])?,
        "blue"
    );
    let done = cluster.kubectl_stdin(
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        &web("sleep 3602"),
    )?;
    assert!(done.ok, "{}", done.stderr);
    // kubectl replaces the revision that it has just read: no rollout may write in between.
    rolled_out(&cluster)?;
    let done = cluster.kubectl_stdin(&["replace", "-f", "-"], &web("sleep 3603"))?;
    assert_eq!(done.stdout, "deployment.apps/web replaced\n", "{}", done.stderr);
    let edited = cluster
        .kubectl_command(&["edit", "deploy/web"])
        .env("KUBE_EDITOR", "sed -i s/3603/3604/")
        .output()?;
    assert!(
        edited.status.success(),
        "{}",
        String::from_utf8_lossy(&edited.stderr)
    );
    assert!(
        cluster
            .kubectl(&["get", "deploy", "web", "-o", "yaml"])?
            .contains("sleep 3604")
    );
    rolled_out(&cluster)?;

    cluster.kubectl(&["scale", "deploy/web", "--replicas=1"])?;
    let one = [
        "wait",
        "--for=jsonpath={.status.replicas}=1",
        "deploy/web",
        "--timeout=60s",
    ];
    let waited = cluster.try_kubectl(&one)?;
    // Debian's kubectl cannot wait for this yet.
    assert!(
        waited.ok || waited.stderr.contains("unrecognized condition"),
        "{}",
        waited.stderr
    );
    cluster.kubectl(&["delete", "deploy", "web"])?;
    eventually("the garbage collector took everything", SOON, || {
        let left = cluster.kubectl(&["get", "rs,pods", "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

#[test]
fn namespaces_go_with_all_that_is_in_them() -> Result<()> {
    let cluster = start()?;
    cluster.kubectl(&["create", "namespace", "lab"])?;
    let done = cluster.kubectl_stdin(&["apply", "-n", "lab", "-f", "-"], &web("sleep 3600"))?;
    assert!(done.ok, "{}", done.stderr);
    cluster.kubectl(&[
        "rollout",
        "status",
        "-n",
        "lab",
        "deployment/web",
        "--timeout=60s",
    ])?;
    cluster.kubectl(&["delete", "namespace", "lab", "--timeout=60s"])?;
    let done = cluster.try_kubectl(&["get", "ns", "lab"])?;
    assert!(done.stderr.contains("NotFound"), "{}", done.stderr);
    assert_eq!(cluster.kubectl(&["get", "pods", "-n", "lab", "-o", "name"])?, "");
    Ok(())
}

#[test]
fn logs_exec_and_port_forward() -> Result<()> {
    let cluster = start()?;
    cluster.apply(&web(
        "echo started; hostname > /www/index.html; exec httpd -f -v -p 80 -h /www",
    ))?;
    rolled_out(&cluster)?;
    cluster.kubectl(&["expose", "deployment", "web", "--port=80"])?;
    assert_eq!(cluster.kubectl(&["logs", "deploy/web"])?, "started\n");
    assert_eq!(
        cluster.kubectl(&["logs", "-l", "app=web", "--tail=1"])?,
        "started\nstarted\n"
    );
    assert_eq!(
        cluster.kubectl(&["exec", "deploy/web", "--", "sh", "-c", "echo out; echo err >&2"])?,
        "out\n"
    );
    let failed = cluster.try_kubectl(&["exec", "deploy/web", "--", "sh", "-c", "exit 5"])?;
    assert!(failed.stderr.contains("exit code 5"), "{}", failed.stderr);
    let mut child = cluster
        .kubectl_command(&["exec", "-i", "deploy/web", "--", "wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("stdin")?, &[b'x'; 200_000])?;
    assert_eq!(
        String::from_utf8_lossy(&child.wait_with_output()?.stdout).trim(),
        "200000"
    );

    for target in ["deploy/web", "svc/web"] {
        let mut forward = cluster
            .kubectl_command(&["port-forward", target, "3000:80", "--address", "0.0.0.0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut line = [0; 64];
        let mut stdout = forward.stdout.take().context("stdout")?;
        let read = stdout.read(&mut line)?;
        let said = String::from_utf8_lossy(&line[..read]).into_owned();
        let answers: Vec<_> = (0..5)
            .map(|_| {
                let url = format!("http://{NODE_IP}:3000/");
                let output = cluster
                    .network()
                    .on_node("curl")
                    .args(["--silent", "--max-time", "10", &url])
                    .output()?;
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            })
            .collect::<Result<_>>()?;
        forward.kill()?;
        forward.wait()?;
        assert!(said.contains("Forwarding from 0.0.0.0:3000 -> 80"), "{said}");
        assert!(
            answers.iter().all(|a| a.starts_with("web-")),
            "{target}: {answers:?}"
        );
    }
    let mut follow = cluster
        .kubectl_command(&["logs", "-f", "deploy/web"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut first = [0; 8];
    follow.stdout.take().context("stdout")?.read_exact(&mut first)?;
    follow.kill()?;
    follow.wait()?;
    assert_eq!(&first, b"started\n");
    Ok(())
}
