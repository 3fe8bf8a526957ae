//! `coracle diagnose` against Services that are really misconfigured, and one that is not.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{BUSYBOX, Cluster, NODE_IP, eventually};
use serde_json::Value;
use std::process::Output;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

/// Pods that listen on 8080, and others that do not do what they should.
fn pods() -> String {
    let pod = |name: &str, spec: &str| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  {spec}
"
        )
    };
    let container = |fields: &str| format!("containers: [{{name: web, image: {BUSYBOX}, {fields}}}]");
    let probe = "readinessProbe: {tcpSocket: {port: 8081}, periodSeconds: 1}";
    let parts = [
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: api}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: api}}}}
  template:
    metadata: {{labels: {{app: api}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: api
        image: {BUSYBOX}
        command: [sh, -c, 'hostname > /www/index.html; exec httpd -f -p 8080 -h /www']
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{tcpSocket: {{port: http}}, periodSeconds: 1}}
"
        ),
        pod(
            "loopback",
            &container("command: [httpd, -f, -p, '127.0.0.1:8080']"),
        ),
        pod(
            "unready",
            &container(&format!("command: [httpd, -f, -p, '8080'], {probe}")),
        ),
        pod("crashing", &container("command: [sh, -c, 'exit 3']")),
        pod(
            "pending",
            &format!(
                "nodeSelector: {{disk: fast}}\n  {}",
                container("command: [sleep, '1']")
            ),
        ),
        pod(
            "imageless",
            "containers: [{name: web, image: 'coracle.local/none:1', imagePullPolicy: Never}]",
        ),
        pod("client", &container("command: [sleep, '3600']")),
    ];
    parts.concat()
}

fn services() -> String {
    let service = |name: &str, spec: &str| {
        format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
    };
    let selecting =
        |app: &str, port: &str| format!("selector: {{app: {app}}}, ports: [{{port: 80, {port}}}]");
    let parts = [
        service(
            "api",
            &format!(
                "type: NodePort, {}",
                selecting("api", "targetPort: http, nodePort: 30080")
            ),
        ),
        service("typo", &selecting("apii", "targetPort: http")),
        service("port", &selecting("api", "targetPort: 80")),
        service("port-name", &selecting("api", "targetPort: htpp")),
        service("protocol", &selecting("api", "targetPort: 8080, protocol: UDP")),
        service(
            "headless",
            &format!("clusterIP: None, {}", selecting("api", "targetPort: http")),
        ),
        service("by-hand", "ports: [{port: 80}]"),
        service("loopback", &selecting("loopback", "targetPort: 8080")),
        service("unready", &selecting("unready", "targetPort: 8080")),
        service("crashing", &selecting("crashing", "targetPort: 8080")),
        service("pending", &selecting("pending", "targetPort: 8080")),
        service("imageless", &selecting("imageless", "targetPort: 8080")),
    ];
    parts.concat()
}

fn start() -> Result<Cluster> {
    let cluster = Cluster::start(BINARY)?;
    cluster.load_busybox()?;
    cluster.apply(&pods())?;
    cluster.apply(&services())?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        "deployment/api",
        "--timeout=60s",
    ])?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/client",
        "pod/loopback",
        "--timeout=60s",
    ])?;
    Ok(cluster)
}

fn run(cluster: &Cluster, args: &[&str]) -> Result<Output> {
    let mut command = cluster.coracle();
    command
        .arg("diagnose")
        .args(args)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig());
    command.arg("--run-dir").arg(cluster.directory().join("run"));
    command.output().context("cannot run coracle")
}

fn diagnose(cluster: &Cluster, args: &[&str]) -> Result<Value> {
    let output = run(cluster, &[args, &["--output", "json"]].concat())?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Waits until the verdict is this; what it says then.
fn verdict(cluster: &Cluster, service: &str, code: &str) -> Result<(String, String)> {
    verdict_of(cluster, &[service], code)
}

fn verdict_of(cluster: &Cluster, args: &[&str], code: &str) -> Result<(String, String)> {
    eventually(&args.join(" "), SOON, || {
        let diagnosis = diagnose(cluster, args)?;
        let verdict = &diagnosis["verdict"];
        ensure!(verdict["code"] == code, "{diagnosis:#}");
        let text = |key: &str| verdict[key].as_str().unwrap_or_default().to_owned();
        Ok((text("message"), text("fix")))
    })
}

/// What stock kubectl says while a Service is written.
fn warnings(cluster: &Cluster, args: &[&str]) -> Result<String> {
    let output = cluster.kubectl_command(args).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{args:?}: {said}");
    Ok(said)
}

#[test]
fn stock_kubectl_shows_findings_on_write_and_in_describe() -> Result<()> {
    let cluster = start()?;

    let said = warnings(
        &cluster,
        &[
            "patch",
            "service",
            "typo",
            "-p",
            r#"{"spec":{"selector":{"app":"aapi"}}}"#,
        ],
    )?;
    assert_eq!(
        said,
        "Warning: spec.selector: `app: aapi` matches no Pod; 3 Pods have `app: api`\n"
    );
    let said = warnings(
        &cluster,
        &[
            "create",
            "service",
            "externalname",
            "db",
            "--external-name=192.0.2.7",
        ],
    )?;
    assert!(
        said.starts_with("Warning: spec.externalName: externalName 192.0.2.7 is an address"),
        "{said}"
    );
    // Its Pods may be about to come, and nothing else was changed here.
    for args in [
        ["create", "service", "clusterip", "later", "--tcp=80"].as_slice(),
        &["label", "service", "port-name", "looked-at=yes"],
    ] {
        assert_eq!(warnings(&cluster, args)?, "", "{args:?}");
    }

    for (service, reason, text) in [
        ("typo", "SelectorMatchesNothing", "3 Pods have `app: api`"),
        ("port-name", "TargetPortUnknown", "they have \"http\" (8080/TCP)"),
        ("imageless", "ImagePull", "has no image coracle.local/none:1"),
    ] {
        let described = eventually(service, SOON, || {
            let described = cluster.kubectl(&["describe", "service", service])?;
            ensure!(described.contains(reason), "{described}");
            Ok(described)
        })?;
        let event = described
            .lines()
            .find(|line| line.contains(reason))
            .unwrap_or_default();
        assert!(event.contains("Warning") && event.contains(text), "{event}");
    }
    // A value that nobody knows: the Service answers, and that is what `diagnose` exits with.
    let asks = "coracle.dev/balancing=least-connection";
    let said = warnings(&cluster, &["annotate", "service", "loopback", asks])?;
    assert!(said.contains("\"least-connection\" is not known"), "{said}");
    eventually("an Event about the annotation", SOON, || {
        let described = cluster.kubectl(&["describe", "service", "loopback"])?;
        let event = described.lines().find(|line| line.contains("BalancingUnknown"));
        ensure!(
            event.is_some_and(|line| line.contains("coracle.dev/balancing=least-connections")),
            "{described}"
        );
        Ok(())
    })?;
    // The cause goes, and with it the condition; a Service that answers was never complained about.
    let condition = |service: &str| {
        let condition = r#"jsonpath={.status.conditions[?(@.type=="coracle.dev/Reachable")].reason}"#;
        cluster.kubectl(&["get", "service", service, "-o", condition])
    };
    assert_eq!(condition("port-name")?, "TargetPortUnknown");
    let fix = r#"[{"op":"add","path":"/spec/ports/0/targetPort","value":"http"}]"#;
    warnings(
        &cluster,
        &["patch", "service", "port-name", "--type=json", "-p", fix],
    )?;
    eventually("the condition goes", SOON, || {
        ensure!(condition("port-name")?.is_empty());
        Ok(())
    })?;
    let events = cluster.get_json(&["events", "--field-selector", "involvedObject.kind=Service"])?;
    let of_api = |event: &&Value| event["involvedObject"]["name"] == "api";
    assert_eq!(
        events["items"].as_array().into_iter().flatten().find(of_api),
        None
    );
    Ok(())
}

#[test]
fn each_mistake_has_its_verdict_and_the_fix_works() -> Result<()> {
    let cluster = start()?;

    let (message, fix) = verdict(&cluster, "svc/typo", "SelectorMatchesNothing")?;
    assert_eq!(
        message,
        "selector `app: apii` matches no Pod; 3 Pods have `app: api`"
    );
    apply(&cluster, &fix)?;
    verdict(&cluster, "svc/typo", "Answers")?;

    let (message, fix) = verdict(&cluster, "svc/port", "NothingListens")?;
    let wanted = "in 3 of 3 Pods, nothing listens on port 80 (targetPort of 80/TCP); port 8080 listens there";
    assert_eq!(message, wanted);
    apply(&cluster, &fix)?;
    verdict(&cluster, "svc/port", "Answers")?;

    let (message, fix) = verdict(&cluster, "svc/port-name", "TargetPortUnknown")?;
    assert!(
        message.contains("\"htpp\"") && message.contains("\"http\" (8080/TCP)"),
        "{message}"
    );
    apply(&cluster, &fix)?;
    verdict(&cluster, "svc/port-name", "Answers")?;

    let (message, _) = verdict(&cluster, "svc/protocol", "WrongProtocol")?;
    assert!(message.ends_with("listens on TCP, not on UDP"), "{message}");
    verdict(&cluster, "svc/headless", "HeadlessPort")?;
    verdict(&cluster, "svc/by-hand", "NoSelectorNoEndpoints")?;
    verdict(&cluster, "svc/loopback", "ListensOnLoopback")?;
    let (message, fix) = verdict(&cluster, "svc/unready", "ProbeFailing")?;
    assert!(
        message.contains("0 of 1 Pod ready") && message.contains("port 8080 listens"),
        "{message}"
    );
    assert!(fix.contains("8081") && fix.contains("8080"), "{fix}");
    let (message, fix) = verdict(&cluster, "svc/crashing", "CrashLoop")?;
    assert!(message.contains("exit code 3"), "{message}");
    assert!(fix.contains("kubectl logs crashing -c web"), "{fix}");
    verdict(&cluster, "svc/pending", "Unschedulable")?;
    let (message, _) = verdict(&cluster, "svc/imageless", "ImagePull")?;
    assert!(message.contains("coracle.local/none:1"), "{message}");
    let (message, _) = verdict(&cluster, "svc/apo", "NoSuchService")?;
    assert!(message.ends_with("there is api"), "{message}");
    Ok(())
}

/// Does what the fix says: it is a kubectl command.
fn apply(cluster: &Cluster, fix: &str) -> Result<()> {
    let output = cluster
        .network()
        .on_node("sh")
        .args(["-c", fix])
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()?;
    ensure!(
        output.status.success(),
        "{fix}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}}}
spec: {spec}
"
    )
}

/// By the rules in force, at either end, and for the cluster DNS; each fix lets the connection come one step further.
#[test]
fn a_network_policy_that_forbids_is_named_and_the_fix_works() -> Result<()> {
    let cluster = start()?;
    let from_client = ["svc/api", "--from", "pod/client"];
    verdict_of(&cluster, &from_client, "Answers")?;

    let ingress = "{podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}], ports: [{port: http}]}]}";
    cluster.apply(&policy("frontend-only", ingress))?;
    let (message, fix) = verdict_of(&cluster, &from_client, "NetworkPolicyDenies")?;
    assert!(
        message.starts_with("80/TCP: NetworkPolicy default/frontend-only isolates the ingress of Pod api-"),
        "{message}"
    );
    assert!(
        message.ends_with("and admits Pods with app=frontend to port http/TCP; Pod client has app=client"),
        "{message}"
    );
    // Nobody keeps the node from its own Pods.
    verdict(&cluster, "svc/api", "Answers")?;
    apply(&cluster, &fix)?;
    verdict_of(&cluster, &from_client, "Answers")?;

    let egress = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 80}]}]}";
    cluster.apply(&policy("to-api", egress))?;
    let (message, fix) = verdict_of(&cluster, &from_client, "NetworkPolicyDenies")?;
    assert_eq!(
        message,
        "80/TCP: NetworkPolicy default/to-api isolates the egress of Pod client and admits connections to Pods with app=api on port 80/TCP; the connection goes to port 8080/TCP, the targetPort of 80"
    );
    apply(&cluster, &fix)?;
    let (message, fix) = eventually("the endpoints are admitted", SOON, || {
        let (message, fix) = verdict_of(&cluster, &from_client, "NetworkPolicyDenies")?;
        ensure!(
            message.starts_with("the client cannot ask the cluster DNS: NetworkPolicy default/to-api"),
            "{message}"
        );
        Ok((message, fix))
    })?;
    assert!(
        message.ends_with("the cluster DNS has no label app and is in namespace kube-system"),
        "{message}"
    );
    apply(&cluster, &fix)?;
    verdict_of(&cluster, &from_client, "Answers")?;
    Ok(())
}

#[test]
fn where_nothing_is_wrong_every_step_is_seen_and_every_way_answers() -> Result<()> {
    let cluster = start()?;
    verdict(&cluster, "svc/api", "Answers")?;
    for from in [&["svc/api"][..], &["svc/api", "--from", "pod/client"]] {
        let begin = Instant::now();
        let output = run(&cluster, from)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        for step in [
            "object",
            "selector",
            "pods",
            "targetPort",
            "endpointslice",
            "rule",
            "conntrack",
            "networkpolicy",
            "dns",
            "connection",
        ] {
            let line = text.lines().find(|line| line.trim_start().starts_with(step));
            assert!(line.is_some_and(|line| line.contains(" ok ")), "{step}: {text}");
        }
        assert!(
            text.contains(&format!("node port {NODE_IP}:30080: accepted")),
            "{text}"
        );
        assert!(text.contains("straight to 3 of 3 endpoints"), "{text}");
    }
    // The client was a Pod: its connections are tracked with its address.
    let from_pod = diagnose(&cluster, &["svc/api", "--from", "client"])?;
    assert_eq!(from_pod["client"], "pod default/client");

    // Something that has to be done is an exit status; so is a Pod that is not there.
    assert_eq!(run(&cluster, &["svc/nothing"])?.status.code(), Some(1));
    let output = run(&cluster, &["svc/api", "--from", "pod/nobody"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains("\"nobody\" not found"),
        "{error}"
    );
    Ok(())
}

/// The rules as the kernel has them, and every Pod that chance may choose.
#[test]
fn the_path_of_a_connection_is_told_in_names() -> Result<()> {
    let cluster = start()?;
    verdict(&cluster, "svc/api", "Answers")?;
    let path = |service: &str| -> Result<String> {
        let mut command = cluster.coracle();
        command.args(["path", "pod/client", service, "--kubeconfig"]);
        command.arg(cluster.kubeconfig()).arg("--run-dir");
        let output = command.arg(cluster.directory().join("run")).output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{error}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let told = path("svc/api:80")?;
    assert!(told.contains("one of 3 endpoints at random"), "{told}");
    let pods = cluster.kubectl(&[
        "get",
        "pods",
        "-l",
        "app=api",
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ])?;
    for pod in pods.split_whitespace() {
        let outcome = format!(":8080 (Pod default/{pod})\n");
        assert!(
            told.lines()
                .any(|l| l.starts_with("Outcome: sent to") && format!("{l}\n").ends_with(&outcome)),
            "{told}"
        );
    }
    assert_eq!(pods.split_whitespace().count(), 3);
    // Its selector finds nothing, so the kernel refuses.
    assert!(path("svc/typo:80")?.ends_with("Outcome: refused at once\n"));
    let error = path("svc/api:81").expect_err("no such port").to_string();
    assert!(error.contains("the Service has no port 81; it has 80"), "{error}");
    Ok(())
}

#[test]
fn without_root_the_objects_are_judged_alone() -> Result<()> {
    let cluster = start()?;
    verdict(&cluster, "svc/api", "Answers")?;
    let copy = cluster.directory().join("kubeconfig-of-nobody");
    std::fs::copy(cluster.kubeconfig(), &copy)?;
    let mut command = cluster.network().on_node("setpriv");
    for path in [cluster.directory(), copy.as_path()] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode)?;
    }
    command
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            BINARY,
            "diagnose",
            "svc/api",
        ])
        .arg("--kubeconfig")
        .arg(copy);
    let output = command
        .output()
        .context("cannot run setpriv (Debian package util-linux)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("not tried: it takes root on a node of the cluster"),
        "{text}"
    );
    assert!(text.contains("3 of 3 Pods ready"), "{text}");
    Ok(())
}
