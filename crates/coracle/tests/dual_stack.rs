//! IPv6: a dual-stack cluster, a cluster of IPv6 alone, and what a cluster of IPv4 alone says to those who ask for more.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{BUSYBOX, Cluster, NODE_IP, NODE_IPV6, OUTSIDE_IPV6, eventually, web_servers};
use serde_json::{Value, json};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

fn manifest() -> String {
    format!(
        "{}---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  selector: {{app: echo}}
  ports: [{{name: web, port: 80, targetPort: web, nodePort: 30080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: headless}}
spec:
  clusterIP: None
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv6, IPv4]
  selector: {{app: echo}}
  ports: [{{name: web, port: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: single}}
spec:
  selector: {{app: echo}}
  ports: [{{port: 80, targetPort: web}}]
---
apiVersion: v1
kind: Service
metadata: {{name: balanced}}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {{app: echo}}
  ports: [{{port: 8088, targetPort: web}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: sh
    image: {BUSYBOX}
    # Its address is used by the first thing that it does.
    command: [sh, -c, 'wget -qO /first http://[{OUTSIDE_IPV6}]:9090/; echo $? > /status; exec sleep 3600']
    ports: [{{containerPort: 9000, hostPort: 9000}}]
    env:
    - {{name: POD_IPS, valueFrom: {{fieldRef: {{fieldPath: status.podIPs}}}}}}
    - {{name: HOST_IPS, valueFrom: {{fieldRef: {{fieldPath: status.hostIPs}}}}}}
",
        web_servers("echo", 2)
    )
}

/// IPv4 is the primary family. The address of the node in the other one is found.
const DUAL_STACK: [&str; 4] = [
    "--cluster-cidr",
    "10.244.0.0/16,fd00:10:244::/56",
    "--service-cidr",
    "10.96.0.0/12,fd00:10:96::/112",
];

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.map(|item| {
        item.as_str()
            .or(item["ip"].as_str())
            .unwrap_or_default()
            .to_owned()
    })
    .collect()
}

/// As it stands in a URL.
fn host(ip: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    }
}

fn output(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// GETs with curl.
fn get(mut curl: Command, ip: &str, port: u16) -> Result<String> {
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--globoff",
        "--max-time",
        "5",
    ]);
    curl.arg(format!("http://{}:{port}/", host(ip)));
    output(curl)
}

/// A web server on the machine outside, which knows the node and none of its Pods.
struct Outside(Child);

impl Outside {
    fn start(cluster: &Cluster) -> Result<Self> {
        let directory = cluster.directory().join("www");
        std::fs::create_dir(&directory)?;
        std::fs::write(directory.join("index.html"), "outside")?;
        let mut server = cluster.network().outside("busybox");
        server.args(["httpd", "-f", "-p", "9090", "-h"]).arg(directory);
        let server = Self(
            server
                .spawn()
                .context("busybox (Debian package busybox-static)")?,
        );
        eventually("the machine outside", SOON, || {
            get(cluster.network().on_node("curl"), OUTSIDE_IPV6, 9090)
        })?;
        Ok(server)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // It is gone already, or it is now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The records that a server of the cluster DNS has, sorted.
fn dig(cluster: &Cluster, server: &str, question: &[&str]) -> Result<Vec<String>> {
    let mut dig = cluster.network().on_node("dig");
    dig.arg(format!("@{server}"))
        .args(["+short", "+timeout=2", "+tries=1"]);
    dig.args(question);
    let mut lines: Vec<String> = output(dig)?.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

fn addresses(cluster: &Cluster, service: &str) -> Result<Vec<String>> {
    Ok(texts(&cluster.get_json(&["svc", service])?["spec"]["clusterIPs"]))
}

#[test]
fn a_dual_stack_cluster() -> Result<()> {
    let cluster = Cluster::start_with(BINARY, &DUAL_STACK)?;
    cluster.load_busybox()?;
    node_and_defaults(&cluster)?;
    let _outside = Outside::start(&cluster)?;
    cluster.apply(&manifest())?;
    let available = "--for=condition=Available";
    cluster.kubectl(&["wait", available, "deployment/echo", "--timeout=60s"])?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"])?;
    let pods = cluster.get_json(&["pods", "-l", "app=echo"])?;
    pods_have_both(&cluster)?;
    explained(&cluster)?;
    services_answer(&cluster)?;
    names(&cluster, &pods)?;
    policies_change(&cluster)
}

fn node_and_defaults(cluster: &Cluster) -> Result<()> {
    let node = cluster.get_json(&["node", "node-1"])?;
    assert_eq!(
        node["spec"]["podCIDRs"],
        json!(["10.244.0.0/24", "fd00:10:244::/64"])
    );
    assert_eq!(node["spec"]["podCIDR"], "10.244.0.0/24");
    let internal: Vec<&Value> = node["status"]["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|address| address["type"] == "InternalIP")
        .map(|address| &address["address"])
        .collect();
    assert_eq!(internal, [NODE_IP, NODE_IPV6]);
    let range = cluster.get_json(&["servicecidr", "kubernetes"])?;
    assert_eq!(
        range["spec"]["cidrs"],
        json!(["10.96.0.0/12", "fd00:10:96::/112"])
    );
    // As upstream: in the primary family.
    let kubernetes = cluster.get_json(&["svc", "kubernetes"])?;
    assert_eq!(kubernetes["spec"]["clusterIPs"], json!(["10.96.0.1"]));
    assert_eq!(kubernetes["spec"]["ipFamilyPolicy"], "SingleStack");
    Ok(())
}

fn pods_have_both(cluster: &Cluster) -> Result<()> {
    let client = cluster.get_json(&["pod", "client"])?;
    let ips = texts(&client["status"]["podIPs"]);
    ensure!(ips.len() == 2, "{ips:?}");
    assert!(ips[0].starts_with("10.244.0."), "{ips:?}");
    assert!(ips[1].starts_with("fd00:10:244::"), "{ips:?}");
    assert_eq!(client["status"]["podIP"], ips[0].as_str());
    assert_eq!(texts(&client["status"]["hostIPs"]), [NODE_IP, NODE_IPV6]);
    let exec = |script: &str| cluster.kubectl(&["exec", "client", "--", "sh", "-c", script]);
    assert_eq!(exec("echo $POD_IPS")?.trim(), ips.join(","));
    assert_eq!(exec("echo $HOST_IPS")?.trim(), format!("{NODE_IP},{NODE_IPV6}"));
    let hosts = exec("cat /etc/hosts")?;
    for ip in &ips {
        assert!(hosts.contains(&format!("{ip}\tclient\n")), "{hosts}");
    }
    assert_eq!(
        exec("cat /status")?.trim(),
        "0",
        "the address was of use from the start"
    );
    assert!(exec("grep nameserver /etc/resolv.conf")?.contains("nameserver 10.96.0.10\n"));
    // A port of the node leads to the Pod in both families.
    let server = "echo hi > /tmp/index.html; httpd -p 9000 -h /tmp";
    exec(server)?;
    for ip in [NODE_IP, NODE_IPV6] {
        let answer = eventually("the host port", SOON, || {
            let mut curl = cluster.network().outside("curl");
            curl.args(["--silent", "--globoff", "--max-time", "5"]);
            curl.arg(format!("http://{}:9000/index.html", host(ip)));
            output(curl)
        })?;
        assert_eq!(answer, "hi", "{ip}");
    }
    Ok(())
}

/// Whoever looks at a Service finds both of its addresses.
fn explained(cluster: &Cluster) -> Result<()> {
    let ips = addresses(cluster, "echo")?;
    let run = |args: &[&str]| {
        let mut command = cluster.coracle();
        command.args(args).arg("--kubeconfig").arg(cluster.kubeconfig());
        command.arg("--run-dir").arg(cluster.directory().join("run"));
        output(command)
    };
    let diagnosis = run(&["diagnose", "svc/echo", "--from", "pod/client"])?;
    assert!(diagnosis.contains("Verdict: echo answers."), "{diagnosis}");
    for (family, ip) in ["IPv4", "IPv6"].iter().zip(&ips) {
        assert!(diagnosis.contains(&format!("{}:80", host(ip))), "{diagnosis}");
        let path = run(&["path", "pod/client", "svc/echo:80", "--ip-family", family])?;
        assert!(path.contains(&format!("{}:80/TCP", host(ip))), "{path}");
        assert!(path.contains("one of 2 endpoints at random"), "{path}");
    }
    Ok(())
}

fn services_answer(cluster: &Cluster) -> Result<()> {
    let echo = cluster.get_json(&["svc", "echo"])?;
    assert_eq!(echo["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let ips = texts(&echo["spec"]["clusterIPs"]);
    ensure!(ips.len() == 2, "{ips:?}");
    assert!(ips[1].starts_with("fd00:10:96::"), "{ips:?}");
    for ip in &ips {
        let url = format!("http://{}/", host(ip));
        for from in ["pod/client", "deployment/echo"] {
            // Often enough that a Pod of the Deployment meets itself.
            let script = format!("for i in 1 2 3 4 5 6 7 8; do wget -qO- {url} || exit 1; done");
            let said = cluster.kubectl(&["exec", from, "--", "sh", "-c", &script])?;
            assert!(said.lines().all(|line| line.starts_with("echo-")), "{said}");
        }
        assert!(get(cluster.network().on_node("curl"), ip, 80)?.starts_with("echo-"));
        let parent = cluster.get_json(&["ipaddress", ip])?;
        assert_eq!(parent["spec"]["parentRef"]["name"], "echo");
    }
    for ip in [NODE_IP, NODE_IPV6] {
        for curl in [
            cluster.network().on_node("curl"),
            cluster.network().outside("curl"),
        ] {
            assert!(get(curl, ip, 30080)?.starts_with("echo-"), "{ip}");
        }
        // The load balancer's addresses are the node's.
        let answer = eventually("the load balancer", SOON, || {
            get(cluster.network().outside("curl"), ip, 8088)
        })?;
        assert!(answer.starts_with("echo-"), "{answer}");
    }
    let ingress = &cluster.get_json(&["svc", "balanced"])?["status"]["loadBalancer"]["ingress"];
    assert_eq!(texts(ingress), [NODE_IP, NODE_IPV6]);
    let slices = cluster.get_json(&["endpointslices", "-l", "kubernetes.io/service-name=echo"])?;
    let mut families: Vec<&str> = slices["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|slice| slice["addressType"].as_str())
        .collect();
    families.sort_unstable();
    assert_eq!(families, ["IPv4", "IPv6"]);
    Ok(())
}

fn names(cluster: &Cluster, pods: &Value) -> Result<()> {
    let ips = addresses(cluster, "echo")?;
    let of_pods = |index: usize| -> Vec<String> {
        let items = pods["items"].as_array().into_iter().flatten();
        let mut ips: Vec<String> = items
            .map(|pod| texts(&pod["status"]["podIPs"])[index].clone())
            .collect();
        ips.sort();
        ips
    };
    // The cluster DNS is at an address of each family, and tells both of both.
    for server in ["10.96.0.10", "fd00:10:96::a"] {
        for (record, index) in [("A", 0), ("AAAA", 1)] {
            let name = "echo.default.svc.cluster.local";
            assert_eq!(dig(cluster, server, &[name, record])?, ips[index..=index]);
            let headless = dig(cluster, server, &["headless.default.svc.cluster.local", record])?;
            assert_eq!(headless, of_pods(index), "{record} of the headless Service");
        }
        let name = dig(cluster, server, &["-x", &ips[1]])?;
        assert_eq!(name, ["echo.default.svc.cluster.local."]);
        let pod = &of_pods(1)[0];
        let dashed = format!("{}.default.pod.cluster.local", pod.replace(':', "-"));
        assert_eq!(dig(cluster, server, &[&dashed, "AAAA"])?, [pod.as_str()]);
        // It has no address of the other family, and this is not the end of the name.
        assert_eq!(
            dig(cluster, server, &["single.default.svc.cluster.local", "AAAA"])?,
            [] as [&str; 0]
        );
    }
    Ok(())
}

/// Single stack to dual stack and back, while the cluster runs.
fn policies_change(cluster: &Cluster) -> Result<()> {
    let patch = |patch: &str| cluster.kubectl(&["patch", "svc", "single", "-p", patch]);
    let before = addresses(cluster, "single")?;
    ensure!(before.len() == 1, "{before:?}");
    patch(r#"{"spec":{"ipFamilyPolicy":"RequireDualStack"}}"#)?;
    let both = addresses(cluster, "single")?;
    ensure!(both.len() == 2 && both[0] == before[0], "{both:?}");
    for ip in &both {
        let answer = eventually("both addresses", SOON, || {
            get(cluster.network().on_node("curl"), ip, 80)
        })?;
        assert!(answer.starts_with("echo-"), "{answer}");
    }
    patch(r#"{"spec":{"ipFamilyPolicy":"SingleStack"}}"#)?;
    assert_eq!(addresses(cluster, "single")?, before);
    eventually("the second address is given back", SOON, || {
        let gone = cluster.try_kubectl(&["get", "ipaddress", &both[1]])?;
        ensure!(gone.stderr.contains("not found"), "{gone:?}");
        Ok(())
    })?;
    assert!(get(cluster.network().on_node("curl"), &before[0], 80)?.starts_with("echo-"));
    get(cluster.network().on_node("curl"), &both[1], 80).expect_err("nobody has the address");
    Ok(())
}

#[test]
fn ipv6_may_be_the_primary_family() -> Result<()> {
    let cluster = Cluster::start_with(
        BINARY,
        &[
            "--cluster-cidr",
            "fd00:10:244::/56,10.244.0.0/16",
            "--service-cidr",
            "fd00:10:96::/112,10.96.0.0/12",
            "--node-ip",
            &format!("{NODE_IP},{NODE_IPV6}"),
            "--load-balancer-pool",
            "172.30.0.128/28,fd00:172:30::100/124",
        ],
    )?;
    cluster.load_busybox()?;
    cluster.apply(&manifest())?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"])?;
    let client = cluster.get_json(&["pod", "client"])?;
    let ips = texts(&client["status"]["podIPs"]);
    ensure!(
        ips.len() == 2 && ips[0].starts_with("fd00:10:244::"),
        "the primary address is first: {ips:?}"
    );
    assert_eq!(texts(&client["status"]["hostIPs"]), [NODE_IPV6, NODE_IP]);
    assert_eq!(addresses(&cluster, "kubernetes")?, ["fd00:10:96::1"]);
    let single = cluster.get_json(&["svc", "single"])?;
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv6"]));
    let echo = addresses(&cluster, "echo")?;
    ensure!(echo.len() == 2 && echo[0].starts_with("fd00:10:96::"), "{echo:?}");
    let exec = |script: &str| cluster.kubectl(&["exec", "client", "--", "sh", "-c", script]);
    assert!(exec("cat /etc/resolv.conf")?.contains("nameserver fd00:10:96::a\n"));
    // Addresses out of the pool, announced on the node's link in both families.
    let ingress = eventually("addresses of the load balancer", SOON, || {
        let balanced = cluster.get_json(&["svc", "balanced"])?;
        let ingress = texts(&balanced["status"]["loadBalancer"]["ingress"]);
        ensure!(ingress.len() == 2, "{balanced}");
        Ok(ingress)
    })?;
    assert!(ingress[0].starts_with("fd00:172:30::10") && ingress[1].starts_with("172.30.0.1"));
    for ip in &ingress {
        let said = eventually("the load balancer", SOON, || {
            get(cluster.network().outside("curl"), ip, 8088)
        })?;
        assert!(said.starts_with("echo-"), "{said}");
    }
    // By name, through the primary address, and through the other.
    for url in ["http://single/".to_owned(), format!("http://{}/", echo[1])] {
        let said = eventually("an answer", SOON, || exec(&format!("wget -qO- {url}")))?;
        assert!(said.starts_with("echo-"), "{said}");
    }
    Ok(())
}

#[test]
fn an_ipv4_cluster_becomes_dual_stack() -> Result<()> {
    let mut cluster = Cluster::start(BINARY)?;
    cluster.load_busybox()?;
    let manifest = manifest();
    let (deployment, _) = manifest.split_once("---\n").context("documents")?;
    cluster.apply(deployment)?;
    cluster.kubectl(&["expose", "deployment", "echo", "--port=80", "--target-port=web"])?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/echo",
        "--timeout=60s",
    ])?;
    let before = cluster.get_json(&["pods", "-l", "app=echo"])?;
    cluster.interrupt()?;
    cluster.set_flags(&DUAL_STACK);
    cluster.up()?;

    let range = cluster.get_json(&["servicecidr", "kubernetes"])?;
    assert_eq!(
        texts(&range["spec"]["cidrs"]),
        ["10.96.0.0/12", "fd00:10:96::/112"]
    );
    assert_eq!(addresses(&cluster, "echo")?.len(), 1, "a Service stays as it is");
    let patch = r#"{"spec":{"ipFamilyPolicy":"RequireDualStack"}}"#;
    cluster.kubectl(&["patch", "svc", "echo", "-p", patch])?;
    let both = addresses(&cluster, "echo")?;
    ensure!(both.len() == 2, "{both:?}");
    // Pods that run keep their one address, new ones have both.
    let after = cluster.get_json(&["pods", "-l", "app=echo"])?;
    let first = |pods: &Value| texts(&pods["items"][0]["status"]["podIPs"]);
    assert_eq!(first(&after), first(&before));
    assert_eq!(
        after["items"][0]["status"]["containerStatuses"][0]["restartCount"],
        0
    );
    get(cluster.network().on_node("curl"), &both[1], 80).expect_err("no endpoint in IPv6");
    cluster.kubectl(&["rollout", "restart", "deployment/echo"])?;
    cluster.kubectl(&["rollout", "status", "deployment/echo", "--timeout=60s"])?;
    for ip in &both {
        let answer = eventually("both addresses", SOON, || {
            get(cluster.network().on_node("curl"), ip, 80)
        })?;
        assert!(answer.starts_with("echo-"), "{answer}");
    }
    Ok(())
}

#[test]
fn a_dual_stack_cluster_becomes_one_of_ipv4() -> Result<()> {
    let iptables = ["--proxy-mode", "iptables"];
    let mut cluster = Cluster::start_with(BINARY, &[&DUAL_STACK[..], &iptables].concat())?;
    cluster.load_busybox()?;
    cluster.apply(&manifest())?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/echo",
        "--timeout=60s",
    ])?;
    let of_ipv6 = |cluster: &Cluster| -> Result<String> {
        let mut said = String::new();
        for line in [
            "ip -6 address show dev lo",
            "ip -6 route",
            "ip6tables-save",
            "nft list tables",
        ] {
            let mut words = line.split(' ');
            let mut command = cluster.network().on_node(words.next().context("a program")?);
            command.args(words);
            said += &output(command)?;
        }
        let ours = |line: &&str| {
            ["fd00:10:", "KUBE-", "table ip6 coracle"]
                .iter()
                .any(|what| line.contains(what))
        };
        // Pods that run keep their addresses.
        let of_pod = |line: &&str| line.contains(" dev cor") && !line.contains(" dev coracle0");
        let lines: Vec<&str> = said.lines().filter(ours).filter(|line| !of_pod(line)).collect();
        Ok(lines.join("\n"))
    };
    let before = of_ipv6(&cluster)?;
    for what in [
        "fd00:10:96::a/128",
        "fd00:10:96::/112",
        "fd00:10:244::1/128",
        "KUBE-SVC-",
        "table ip6",
    ] {
        ensure!(before.contains(what), "no {what} in\n{before}");
    }
    let ips = addresses(&cluster, "echo")?;
    cluster.interrupt()?;
    cluster.set_flags(&iptables);
    cluster.up()?;
    assert_eq!(of_ipv6(&cluster)?, "");
    let answer = eventually("the family that is left", SOON, || {
        get(cluster.network().on_node("curl"), &ips[0], 80)
    })?;
    assert!(answer.starts_with("echo-"), "{answer}");
    Ok(())
}

#[test]
fn ipv4_alone_refuses_dual_stack() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    let service = |policy: &str, families: &str| {
        format!(
            "apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{ipFamilyPolicy: {policy}, ipFamilies: {families}, selector: {{app: web}}, ports: [{{port: 80}}]}}
"
        )
    };
    for (policy, families, message) in [
        (
            "RequireDualStack",
            "[]",
            "The Service \"web\" is invalid: spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": \
             this cluster is not configured for dual-stack services",
        ),
        (
            "SingleStack",
            "[IPv6]",
            "The Service \"web\" is invalid: spec.ipFamilies[0]: Invalid value: \"IPv6\": \
             not configured on this cluster",
        ),
    ] {
        let refused = cluster.kubectl_stdin(&["create", "-f", "-"], &service(policy, families))?;
        assert!(!refused.ok);
        assert_eq!(refused.stderr.trim(), message);
    }
    let preferred = cluster.kubectl_stdin(&["create", "-f", "-"], &service("PreferDualStack", "[]"))?;
    assert!(preferred.ok, "{preferred:?}");
    assert_eq!(addresses(&cluster, "web")?.len(), 1);
    Ok(())
}

#[test]
fn the_tutorial_in_ipv6_alone() -> Result<()> {
    let cluster = Cluster::start_with(
        BINARY,
        &[
            "--cluster-cidr",
            "fd00:10:244::/56",
            "--service-cidr",
            "fd00:10:96::/112",
            "--node-ip",
            NODE_IPV6,
        ],
    )?;
    cluster.load_demo_images()?;
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../manifests/tutorial");
    for file in ["go-demo-2-rs.yml", "go-demo-2-split.yml"] {
        cluster.kubectl(&["create", "-f", &root.join(file).to_string_lossy()])?;
    }
    cluster.kubectl(&[
        "expose",
        "rs",
        "go-demo-2",
        "--name=go-demo-2-svc",
        "--target-port=28017",
        "--type=NodePort",
    ])?;
    let node_ip = output(cluster.command("ip"))?;
    assert_eq!(node_ip, NODE_IPV6);
    let service = cluster.get_json(&["svc", "go-demo-2-svc"])?;
    assert_eq!(service["spec"]["ipFamilies"], json!(["IPv6"]));
    assert!(
        service["spec"]["clusterIP"]
            .as_str()
            .context("an address")?
            .parse::<Ipv6Addr>()
            .is_ok()
    );
    // The second finds its database by name, and its environment was made of IPv6 Services.
    for (service, path, answer) in [
        ("go-demo-2-svc", "/", "demo-db on go-demo-2-"),
        ("go-demo-2-api", "/demo/db", "pong"),
    ] {
        let spec = cluster.get_json(&["svc", service])?;
        let port = spec["spec"]["ports"][0]["nodePort"]
            .as_u64()
            .context("a node port")?;
        for outside in [false, true] {
            let said = eventually("the node port", SOON, || {
                let mut curl = if outside {
                    cluster.network().outside("curl")
                } else {
                    cluster.network().on_node("curl")
                };
                curl.args([
                    "--silent",
                    "--show-error",
                    "--fail",
                    "--globoff",
                    "--max-time",
                    "5",
                ]);
                curl.arg(format!("http://[{node_ip}]:{port}{path}"));
                output(curl)
            })?;
            assert!(said.contains(answer), "{service}: {said}");
        }
    }
    // Nothing of it is IPv4: neither rules nor addresses.
    let mut nft = cluster.network().on_node("nft");
    nft.args(["list", "tables"]);
    assert_eq!(output(nft)?, "table ip6 coracle");
    let pod = cluster.get_json(&["pods", "-l", "service=go-demo-2"])?;
    let ips = texts(&pod["items"][0]["status"]["podIPs"]);
    ensure!(ips.len() == 1 && ips[0].starts_with("fd00:10:244::"), "{ips:?}");
    assert!(output(cluster.command("down"))?.contains("is down"));
    for (args, left) in [
        (vec!["-6", "route", "show", "fd00:10:96::/112"], ""),
        (
            vec!["-6", "-o", "address", "show", "dev", "lo", "scope", "global"],
            "",
        ),
    ] {
        let mut ip = cluster.network().on_node("ip");
        ip.args(args);
        assert_eq!(output(ip)?, left);
    }
    Ok(())
}
