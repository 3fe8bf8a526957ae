//! NetworkPolicies on a real cluster with stock kubectl: who is let through, on every way, and what stays in force.

use anyhow::{Context, Result, bail, ensure};
use coracle_testkit::{BUSYBOX, Cluster, Finished, NODE_IP, eventually};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

/// A server with two ports and a Service, which is probed; a client and a stranger; a client elsewhere.
fn cast() -> String {
    let client = |namespace: &str, name: &str| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: sh, image: {BUSYBOX}, command: [sleep, '3600']}}]
"
        )
    };
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: lab, labels: {{team: research}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: {BUSYBOX}
    command: [sh, -c, 'echo web > /www/index.html; httpd -p 8081 -h /www; exec httpd -f -p 8080 -h /www']
    ports: [{{name: http, containerPort: 8080}}, {{name: admin, containerPort: 8081}}]
    readinessProbe: {{httpGet: {{port: http, path: /}}, periodSeconds: 1, failureThreshold: 1}}
    livenessProbe: {{tcpSocket: {{port: admin}}, periodSeconds: 1, failureThreshold: 2}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http, nodePort: 30080}}]
{}{}{}",
        client("default", "client"),
        client("default", "stranger"),
        client("lab", "client"),
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}}}
spec: {spec}
"
    )
}

/// A cluster with the cast, and the addresses of the server and its Service.
struct Stage {
    cluster: Cluster,
    pod: String,
    service: String,
}

impl Stage {
    fn new() -> Result<Self> {
        let cluster = Cluster::start(BINARY)?;
        cluster.load_busybox()?;
        cluster.apply(&cast())?;
        let ready = ["wait", "--for=condition=Ready", "--timeout=60s"];
        cluster.kubectl(&[&ready[..], &["pod/web", "pod/client", "pod/stranger"]].concat())?;
        cluster.kubectl(&[&ready[..], &["pod/client", "--namespace=lab"]].concat())?;
        let get = |what: &str, path: &str| cluster.kubectl(&["get", what, "-o", path]);
        let pod = get("pod/web", "jsonpath={.status.podIP}")?;
        let service = get("svc/web", "jsonpath={.spec.clusterIP}")?;
        Ok(Self {
            cluster,
            pod,
            service,
        })
    }

    fn apply(&self, name: &str, spec: &str) -> Result<()> {
        self.cluster.apply(&policy(name, spec)).map(drop)
    }

    /// Runs a shell command in a Pod; whether it succeeded.
    fn run(&self, pod: &str, command: &str) -> Result<bool> {
        Ok(self.exec(pod, command)?.ok)
    }

    /// Runs a shell command in a Pod and returns what it prints.
    fn output(&self, pod: &str, command: &str) -> Result<String> {
        Ok(self.exec(pod, command)?.stdout)
    }

    fn exec(&self, pod: &str, command: &str) -> Result<Finished> {
        let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
        let exec = ["exec", "--namespace", namespace, name, "--", "sh", "-c", command];
        self.cluster.try_kubectl(&exec)
    }

    fn reaches(&self, pod: &str, address: &str, port: u16) -> Result<bool> {
        let request = "printf 'GET / HTTP/1.0\\r\\n\\r\\n'";
        self.run(
            pod,
            &format!("{request} | nc -w 1 {address} {port} | grep -q web"),
        )
    }

    /// Whether a Pod reaches the server directly, through the cluster IP and through the node port: all three alike.
    /// At the same time, as each takes a second to fail.
    fn reaches_all_ways(&self, pod: &str) -> Result<bool> {
        let request = "printf 'GET / HTTP/1.0\\r\\n\\r\\n'";
        let one = format!("if {request} | nc -w 1 $way | grep -q web; then echo yes; else echo no; fi");
        let (direct, service) = (&self.pod, &self.service);
        let ways = format!("'{direct} 8080' '{service} 80' '{NODE_IP} 30080'");
        let reached = self.output(pod, &format!("for way in {ways}; do ({one}) & done; wait"))?;
        match reached.split_whitespace().collect::<Vec<_>>()[..] {
            ["yes", "yes", "yes"] => Ok(true),
            ["no", "no", "no"] => Ok(false),
            ref mixed => bail!("{pod}: {mixed:?}"),
        }
    }

    fn resolves(&self, pod: &str) -> Result<bool> {
        self.run(
            pod,
            "timeout 2 nslookup -type=a web.default.svc.cluster.local | grep -q ^Name",
        )
    }

    fn reached_from_outside(&self) -> Result<bool> {
        let mut curl = self.cluster.network().outside("curl");
        curl.args(["--silent", "--max-time", "1", &format!("http://{NODE_IP}:30080/")]);
        let output = curl.output().context("cannot run curl")?;
        Ok(output.stdout == b"web\n")
    }

    /// Who reaches the server: client, stranger, the client of the other namespace, a machine outside.
    fn expect(&self, what: &str, expected: [bool; 4]) -> Result<()> {
        eventually(what, SOON, || {
            let reached = std::thread::scope(|scope| {
                let pods = ["client", "stranger", "lab/client"];
                let pods = pods.map(|pod| scope.spawn(move || self.reaches_all_ways(pod)));
                let outside = self.reached_from_outside()?;
                let mut reached = Vec::new();
                for pod in pods {
                    reached.push(pod.join().expect("it does not panic")?);
                }
                reached.push(outside);
                anyhow::Ok(reached)
            })?;
            ensure!(reached == expected, "{reached:?}");
            Ok(())
        })
    }
}

const WEB: &str = "{matchLabels: {app: web}}";

#[test]
fn ingress_from_default_deny_to_the_end_of_policies() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.expect("no policies", [true; 4])?;

    stage.apply("deny", "{podSelector: {}, policyTypes: [Ingress]}")?;
    stage.expect("default deny", [false; 4])?;
    let described = stage.cluster.kubectl(&["describe", "networkpolicy", "deny"])?;
    assert!(
        described.contains("Selected pods are isolated for ingress connectivity"),
        "{described}"
    );

    let from = |peer: &str| format!("{{podSelector: {WEB}, ingress: [{{from: [{peer}]}}]}}");
    stage.apply("allow", &from("podSelector: {matchLabels: {app: client}}"))?;
    stage.expect("clients of the namespace", [true, false, false, false])?;
    let research = "namespaceSelector: {matchLabels: {team: research}}";
    stage.apply("allow", &from(research))?;
    stage.expect("a namespace", [false, false, true, false])?;
    stage
        .cluster
        .kubectl(&["label", "namespace", "lab", "team=art", "--overwrite"])?;
    stage.expect("the namespace has another label", [false; 4])?;
    stage
        .cluster
        .kubectl(&["label", "namespace", "lab", "team=research", "--overwrite"])?;
    stage.expect("and its old one again", [false, false, true, false])?;
    stage.apply("allow", &from("podSelector: {matchLabels: {app: client}}"))?;
    stage
        .cluster
        .kubectl(&["label", "pod", "stranger", "app=client", "--overwrite"])?;
    stage.expect("a stranger becomes a client", [true, true, false, false])?;
    stage
        .cluster
        .kubectl(&["label", "pod", "stranger", "app=stranger", "--overwrite"])?;
    stage.expect("and a stranger again", [true, false, false, false])?;

    stage.apply("allow", &from("ipBlock: {cidr: 172.30.0.0/24}"))?;
    stage.expect(
        "a block, judged by the client's own address",
        [false, false, false, true],
    )?;
    stage.apply(
        "allow",
        &from("ipBlock: {cidr: 172.30.0.0/24, except: [172.30.0.1/32]}"),
    )?;
    stage.expect("an exception", [false; 4])?;

    // The daemon dies: what it told the kernel stays.
    stage.apply("allow", &from("podSelector: {matchLabels: {app: client}}"))?;
    stage.expect("clients again", [true, false, false, false])?;
    stage.cluster.kill()?;
    assert!(!stage.reached_from_outside()?, "nobody is running");
    stage.cluster.up()?;
    for _ in 0..3 {
        assert!(!stage.reached_from_outside()?, "the daemon is back");
    }
    stage.expect("as before", [true, false, false, false])?;

    // All that time the probes were answered.
    let path = "jsonpath={.status.containerStatuses[0].ready}:{.status.containerStatuses[0].restartCount}";
    assert_eq!(
        stage.cluster.kubectl(&["get", "pod", "web", "-o", path])?,
        "true:0"
    );

    stage
        .cluster
        .kubectl(&["delete", "networkpolicy", "deny", "allow"])?;
    stage.expect("no policies any more", [true; 4])
}

#[test]
fn ports_by_name_and_range() -> Result<()> {
    let stage = Stage::new()?;
    let ports = |ports: &str| format!("{{podSelector: {WEB}, ingress: [{{ports: [{ports}]}}]}}");
    for (list, expected) in [
        ("{port: http}", [true, false]),
        ("{port: admin}", [false, true]),
        ("{port: 8080}", [true, false]),
        ("{port: 8080, endPort: 8090}", [true, true]),
        ("{port: 8081, endPort: 9000}", [false, true]),
        ("{port: 8080, protocol: UDP}", [false, false]),
        ("{protocol: TCP}", [true, true]),
    ] {
        stage.apply("ports", &ports(list))?;
        eventually(list, SOON, || {
            let reached = [
                stage.reaches("client", &stage.pod, 8080)?,
                stage.reaches("client", &stage.pod, 8081)?,
            ];
            ensure!(reached == expected, "{reached:?}");
            Ok(())
        })?;
    }
    let wrong = policy("wrong", &ports("{port: http, endPort: 9000}"));
    let done = stage.cluster.kubectl_stdin(&["apply", "-f", "-"], &wrong)?;
    let message = "spec.ingress[0].ports[0].endPort: Invalid value: 9000: may not be specified when `port` is non-numeric";
    assert!(!done.ok && done.stderr.contains(message), "{done:?}");
    Ok(())
}

#[test]
fn egress_with_and_without_dns_and_a_new_pod() -> Result<()> {
    let stage = Stage::new()?;
    let egress = |rules: &str| {
        format!("{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], egress: [{rules}]}}")
    };
    let look = |what: &str, pod: &str, expected: [bool; 2]| {
        eventually(what, SOON, || {
            let seen = [stage.reaches_all_ways(pod)?, stage.resolves(pod)?];
            ensure!(seen == expected, "{seen:?}");
            Ok(())
        })
    };
    look("no policies", "client", [true, true])?;
    stage.apply("egress", &egress(""))?;
    look("nothing", "client", [false, false])?;
    look("other Pods", "stranger", [true, true])?;
    let dns = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}]}";
    stage.apply("egress", &egress(dns))?;
    look("DNS alone", "client", [false, true])?;
    stage.apply(
        "egress",
        &egress(&format!("{dns}, {{to: [{{podSelector: {WEB}}}]}}")),
    )?;
    look("DNS and the server", "client", [true, true])?;

    // A Pod is isolated from its first instruction on, and the tools say by what.
    stage.apply("egress", &egress(""))?;
    look("nothing again", "client", [false, false])?;
    let early = |name: &str, app: &str| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}}}
spec:
  restartPolicy: Never
  containers:
  - name: sh
    image: {BUSYBOX}
    command: [sh, -c, 'for i in 1 2 3; do nc -w 1 {} 8080 </dev/null && exit 1; done; exit 0']
",
            stage.pod
        )
    };
    stage
        .cluster
        .apply(&(early("early", "client") + &early("free", "stranger")))?;
    for (name, expected) in [("early", "Succeeded"), ("free", "Failed")] {
        eventually("the Pod has tried", SOON, || {
            let path = "jsonpath={.status.phase}";
            let phase = stage.cluster.kubectl(&["get", "pod", name, "-o", path])?;
            ensure!(phase == expected, "{name}: {phase}");
            Ok(())
        })?;
    }
    let path = stage
        .cluster
        .coracle()
        .args(["path", "pod/client", "svc/web:http", "--kubeconfig"])
        .arg(stage.cluster.kubeconfig())
        .arg("--run-dir")
        .arg(stage.cluster.directory().join("run"))
        .output()?;
    let told = String::from_utf8_lossy(&path.stdout);
    assert!(
        told.contains("Egress of Pod default/client is isolated by NetworkPolicy default/egress"),
        "{path:?}"
    );
    Ok(())
}
