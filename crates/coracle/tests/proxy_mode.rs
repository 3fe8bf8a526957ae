//! `--proxy-mode iptables`: Services through the chains that textbooks show, and the way back.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{Cluster, NODE_IP, eventually, web_servers};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

fn manifests() -> String {
    format!(
        "{}---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec:
  type: NodePort
  clusterIP: 10.96.0.80
  selector: {{app: echo}}
  ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: sticky}}
spec:
  clusterIP: 10.96.0.81
  sessionAffinity: ClientIP
  selector: {{app: echo}}
  ports: [{{port: 80, targetPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: local}}
spec:
  type: NodePort
  clusterIP: 10.96.0.82
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  selector: {{app: echo}}
  ports: [{{port: 80, targetPort: 8080, nodePort: 30082}}]
---
apiVersion: v1
kind: Service
metadata: {{name: nobody}}
spec: {{clusterIP: 10.96.0.83, selector: {{app: nobody}}, ports: [{{port: 80}}]}}
",
        web_servers("echo", 2)
    )
}

/// GETs, a connection each; the last lines.
fn get(mut curl: Command, url: &str, times: usize) -> Result<Vec<String>> {
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "10"]);
    curl.args(["--header", "Connection: close"])
        .args(vec![url; times]);
    let output = curl.output().context("cannot run curl")?;
    ensure!(
        output.status.success(),
        "curl {url}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(str::to_owned).collect())
}

/// The flows that every mode carries.
fn check(cluster: &Cluster) -> Result<()> {
    let here = || cluster.network().on_node("curl");
    let outside = || cluster.network().outside("curl");
    let all = |names: Vec<String>| names.into_iter().collect::<BTreeSet<_>>().len();
    eventually("both Pods answer", SOON, || {
        let names = get(here(), "http://10.96.0.80/", 20)?;
        ensure!(all(names.clone()) == 2, "{names:?}");
        Ok(())
    })?;
    assert_eq!(
        all(get(outside(), &format!("http://{NODE_IP}:30080/"), 20)?),
        2,
        "node port"
    );
    assert_eq!(all(get(here(), "http://10.96.0.81/", 10)?), 1, "session affinity");
    assert_eq!(
        all(get(here(), "http://10.96.0.82/", 20)?),
        2,
        "Local, from inside"
    );
    assert_eq!(
        all(get(outside(), &format!("http://{NODE_IP}:30082/"), 20)?),
        2,
        "Local"
    );
    let refused = here()
        .args(["--silent", "--max-time", "10", "http://10.96.0.83/"])
        .output()?;
    assert_eq!(refused.status.code(), Some(7), "without endpoints: refused");
    // A Pod, by name.
    let pod = cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"])?;
    let fetch = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 10 10.96.0.80 80 | tail -n 1";
    let answer = cluster.kubectl(&["exec", &pod, "--", "sh", "-c", fetch])?;
    assert!(answer.starts_with("echo-"), "{answer}");
    Ok(())
}

fn saved(cluster: &Cluster) -> Result<String> {
    let output = cluster
        .network()
        .on_node("iptables-save")
        .output()
        .context("cannot run iptables-save (Debian package iptables)")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn no_chains(cluster: &Cluster) -> Result<()> {
    let text = saved(cluster)?;
    ensure!(!text.contains("KUBE-"), "{text}");
    Ok(())
}

/// `coracle path` walks the chains, and NetworkPolicies judge behind them.
fn the_path_is_told(cluster: &Cluster) -> Result<()> {
    let pods = cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"])?;
    let pods: Vec<&str> = pods.split_whitespace().collect();
    let path = |service: &str| -> Result<String> {
        let mut command = cluster.coracle();
        command.args(["path", pods[0], service, "--kubeconfig"]);
        command.arg(cluster.kubeconfig()).arg("--run-dir");
        let output = command.arg(cluster.directory().join("run")).output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{error}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let told = path("svc/echo:80")?;
    for chain in ["nat KUBE-SERVICES", "nat KUBE-SVC-", "nat KUBE-SEP-"] {
        assert!(told.contains(chain), "no {chain} in\n{told}");
    }
    let sent = |told: &str, pod: &str| {
        let outcome = format!(":8080 (Pod default/{pod})");
        let mut outcomes = told.lines().filter(|line| line.starts_with("Outcome: sent to"));
        outcomes.any(|line| line.contains(&outcome))
    };
    assert!(pods.iter().all(|pod| sent(&told, pod)), "{told}");
    let own = told
        .lines()
        .find(|line| line.starts_with("Outcome") && line.contains(pods[0]));
    assert!(
        own.is_some_and(|line| line.ends_with("which sees an address of the node")),
        "{told}"
    );
    let refused = path("svc/nobody:80")?;
    assert!(refused.ends_with("Outcome: refused at once\n"), "{refused}");

    let deny = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\nspec: {podSelector: {}}\n";
    cluster.apply(deny)?;
    eventually("the policy is told", SOON, || {
        let told = path("svc/echo:80")?;
        let denied = "isolated by NetworkPolicy default/deny, and no rule lets this through";
        ensure!(
            told.contains(denied) && !sent(&told, pods[1]) && sent(&told, pods[0]),
            "{told}"
        );
        Ok(())
    })?;
    // A Pod always reaches itself, and so it is told.
    let get = "(printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 10.96.0.80 80 | tail -n 1)";
    let twenty = format!("for i in $(seq 20); do {get} & done; wait");
    let answers = cluster.kubectl(&["exec", pods[0], "--", "sh", "-c", &twenty])?;
    assert!(
        answers.contains(pods[0]) && !answers.contains(pods[1]),
        "{answers}"
    );
    cluster.kubectl(&["delete", "networkpolicy", "deny"])?;
    eventually("without the policy", SOON, || {
        ensure!(sent(&path("svc/echo:80")?, pods[1]));
        Ok(())
    })
}

#[test]
fn services_work_through_iptables_and_each_mode_cleans_up_the_other() -> Result<()> {
    let mut cluster = Cluster::start_with(BINARY, &["--proxy-mode", "iptables"])?;
    cluster.load_busybox()?;
    cluster.apply(&manifests())?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/echo",
        "--timeout=60s",
    ])?;
    check(&cluster)?;
    // Where a textbook says they are: the Service `kubernetes` has the same chain in every cluster.
    let text = saved(&cluster)?;
    for what in [
        ":KUBE-SVC-NPX46M4PTMTKRN6Y",
        "-j KUBE-MARK-MASQ",
        ":KUBE-SEP-",
        "--mode random --probability 0.5",
        r#"--comment "default/echo cluster IP""#,
        "-m recent --rcheck --seconds 10800 --reap",
    ] {
        assert!(text.contains(what), "no {what} in\n{text}");
    }

    the_path_is_told(&cluster)?;

    cluster.interrupt()?;
    // The chains stay while the daemon is away.
    let url = format!("http://{NODE_IP}:30080/");
    get(cluster.network().outside("curl"), &url, 5)?;
    cluster.set_flags(&["--proxy-mode", "nftables"]);
    cluster.up()?;
    check(&cluster)?;
    no_chains(&cluster)?;

    cluster.interrupt()?;
    cluster.set_flags(&["--proxy-mode", "iptables"]);
    cluster.up()?;
    check(&cluster)?;
    cluster.interrupt()?;
    let down = cluster.command("down").output()?;
    ensure!(down.status.success(), "{down:?}");
    no_chains(&cluster)
}
