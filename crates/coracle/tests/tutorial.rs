//! The Service tutorial, step by step, with stock kubectl on a real cluster.

use anyhow::{Context, Result, ensure};
use coracle_testkit::{Cluster, NODE_IP, eventually};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");
const SOON: Duration = Duration::from_secs(60);

fn manifest(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../manifests/tutorial");
    root.join(name).to_string_lossy().into_owned()
}

fn start() -> Result<Cluster> {
    let cluster = Cluster::start(BINARY)?;
    cluster.load_demo_images()?;
    Ok(cluster)
}

fn ready_replicas(cluster: &Cluster, rs: &str, expected: &str) -> Result<()> {
    eventually(&format!("{expected} ready replicas of {rs}"), SOON, || {
        let ready = cluster.kubectl(&["get", "rs", rs, "-o", "jsonpath={.status.readyReplicas}"])?;
        ensure!(
            ready == expected,
            "{ready:?} ready\n{}",
            cluster.kubectl(&["get", "pods", "-o", "wide"])?
        );
        Ok(())
    })
}

/// A GET on the node's network; the whole answer with its head.
fn curl(cluster: &Cluster, url: &str) -> Result<String> {
    let output = cluster
        .network()
        .on_node("curl")
        .args(["--silent", "--show-error", "--include", "--max-time", "10", url])
        .output()
        .context("cannot run curl")?;
    ensure!(
        output.status.success(),
        "curl {url}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).replace('\r', ""))
}

#[test]
fn exposed_replica_set() -> Result<()> {
    let cluster = start()?;
    assert_eq!(cluster.kubectl(&["config", "current-context"])?.trim(), "coracle");
    let nodes = cluster.kubectl(&["get", "nodes"])?;
    assert!(nodes.contains("node-1") && nodes.contains("Ready"), "{nodes}");

    let rs = manifest("go-demo-2-rs.yml");
    assert_eq!(
        cluster.kubectl(&["create", "-f", &rs])?.trim(),
        "replicaset.apps/go-demo-2 created"
    );
    ready_replicas(&cluster, "go-demo-2", "2")?;
    let table = cluster.kubectl(&["get", "-f", &rs])?;
    assert!(
        table.starts_with("NAME        DESIRED   CURRENT   READY   AGE\n"),
        "{table}"
    );
    let pods = cluster.kubectl(&["get", "pods"])?;
    assert!(pods.contains("2/2     Running   0 "), "{pods}");

    let exposed = cluster.kubectl(&[
        "expose",
        "rs",
        "go-demo-2",
        "--name=go-demo-2-svc",
        "--target-port=28017",
        "--type=NodePort",
    ])?;
    assert_eq!(exposed.trim(), "service/go-demo-2-svc exposed");
    let service = cluster.get_json(&["svc", "go-demo-2-svc"])?;
    let port = &service["spec"]["ports"][0];
    assert_eq!(port["port"], 28017);
    let node_port = port["nodePort"].as_u64().context("a node port")?;
    assert!((30000..=32767).contains(&node_port));

    let table = cluster.kubectl(&["get", "svc", "go-demo-2-svc"])?;
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().context("a header")?.split_whitespace().collect();
    assert_eq!(
        header,
        ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    );
    let row: Vec<&str> = lines.next().context("a row")?.split_whitespace().collect();
    assert_eq!(&row[..2], ["go-demo-2-svc", "NodePort"]);
    assert_eq!(row[3..5], ["<none>", &format!("28017:{node_port}/TCP")]);

    let answer = eventually("the node port answers", SOON, || {
        curl(&cluster, &format!("http://{NODE_IP}:{node_port}/"))
    })?;
    assert!(answer.contains("demo-db on go-demo-2-"), "{answer}");

    let described = cluster.kubectl(&["describe", "svc/go-demo-2-svc"])?;
    let fields: BTreeMap<&str, &str> = described
        .lines()
        .filter_map(|l| l.split_once(':'))
        .map(|(k, v)| (k.trim(), v.trim()))
        .collect();
    for (field, value) in [
        ("Name", "go-demo-2-svc"),
        ("Namespace", "default"),
        ("Labels", "<none>"),
        ("Annotations", "<none>"),
        ("Selector", "service=go-demo-2,type=backend"),
        ("Type", "NodePort"),
        ("IP Family Policy", "SingleStack"),
        ("IP Families", "IPv4"),
        ("Port", "<unset>  28017/TCP"),
        ("TargetPort", "28017/TCP"),
        ("Session Affinity", "None"),
        ("External Traffic Policy", "Cluster"),
        ("Events", "<none>"),
    ] {
        assert_eq!(fields.get(field), Some(&value), "{field} in\n{described}");
    }
    assert_eq!(fields["Endpoints"].split(',').count(), 2, "{described}");
    // Debian's kubectl is older than the field and does not print it.
    assert!(
        fields
            .get("Internal Traffic Policy")
            .is_none_or(|policy| *policy == "Cluster"),
        "{described}"
    );
    assert_eq!(service["spec"]["internalTrafficPolicy"], "Cluster");

    let done = cluster.try_kubectl(&["get", "ep", "go-demo-2-svc", "-o", "yaml"])?;
    assert!(
        done.stderr
            .contains("Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        "{}",
        done.stderr
    );
    let endpoints = cluster.get_json(&["ep", "go-demo-2-svc"])?;
    let metadata = &endpoints["metadata"];
    assert!(metadata["annotations"]["endpoints.kubernetes.io/last-change-trigger-time"].is_string());
    assert_eq!(
        metadata["labels"]["endpoints.kubernetes.io/managed-by"],
        "endpoint-controller"
    );
    let addresses = endpoints["subsets"][0]["addresses"]
        .as_array()
        .context("addresses")?;
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        assert_eq!(address["nodeName"], "node-1");
        let pod = address["targetRef"]["name"].as_str().context("a pod")?;
        let ip = cluster.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])?;
        assert_eq!(address["ip"], ip);
    }

    assert_eq!(
        cluster.kubectl(&["delete", "svc/go-demo-2-svc"])?.trim(),
        "service \"go-demo-2-svc\" deleted"
    );
    let svc = manifest("go-demo-2-svc.yml");
    assert_eq!(
        cluster.kubectl(&["apply", "-f", &svc])?.trim(),
        "service/go-demo-2 created"
    );
    assert!(cluster.kubectl(&["get", "svc"])?.contains("28017:30001/TCP"));
    eventually("the declared node port answers", SOON, || {
        curl(&cluster, &format!("http://{NODE_IP}:30001/"))
    })?;
    // From another machine as well.
    let outside = cluster
        .network()
        .outside("curl")
        .args([
            "--silent",
            "--max-time",
            "10",
            &format!("http://{NODE_IP}:30001/"),
        ])
        .output()?;
    assert!(
        String::from_utf8_lossy(&outside.stdout).contains("demo-db on"),
        "{outside:?}"
    );
    assert_eq!(
        cluster.kubectl(&["apply", "-f", &svc])?.trim(),
        "service/go-demo-2 unchanged"
    );
    cluster.kubectl(&["delete", "-f", &rs])?;
    eventually("the Pods are gone", SOON, || {
        let pods = cluster.kubectl(&["get", "pods", "-o", "name"])?;
        ensure!(pods.is_empty(), "{pods}");
        Ok(())
    })
}

#[test]
fn split_into_database_and_api() -> Result<()> {
    let cluster = start()?;
    let file = manifest("go-demo-2-split.yml");
    let created = cluster.kubectl(&["apply", "-f", &file])?;
    assert_eq!(
        created.lines().collect::<Vec<_>>(),
        [
            "replicaset.apps/go-demo-2-db created",
            "service/go-demo-2-db created",
            "replicaset.apps/go-demo-2-api created",
            "service/go-demo-2-api created",
        ]
    );
    ready_replicas(&cluster, "go-demo-2-db", "1")?;
    ready_replicas(&cluster, "go-demo-2-api", "3")?;
    let all = cluster.kubectl(&["get", "all"])?;
    for name in [
        "pod/go-demo-2-db-",
        "service/go-demo-2-api",
        "replicaset.apps/go-demo-2-api",
    ] {
        assert!(all.contains(name), "{all}");
    }
    let port = cluster.kubectl(&[
        "get",
        "svc",
        "go-demo-2-api",
        "-o",
        "jsonpath={.spec.ports[0].nodePort}",
    ])?;
    let url = format!("http://{NODE_IP}:{port}/demo/hello");
    let answer = eventually("the API answers", SOON, || curl(&cluster, &url))?;
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\nContent-Length: 14\nContent-Type: text/plain; charset=utf-8\n\nhello, world!\n"
    );
    // Requests spread over the three Pods.
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..60 {
        let answer = curl(&cluster, &format!("http://{NODE_IP}:{port}/demo/hostname"))?;
        *seen
            .entry(answer.lines().last().unwrap_or_default().to_owned())
            .or_default() += 1;
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    let deleted = cluster.kubectl(&["delete", "-f", &file])?;
    assert!(deleted.contains("service \"go-demo-2-api\" deleted"), "{deleted}");
    Ok(())
}
