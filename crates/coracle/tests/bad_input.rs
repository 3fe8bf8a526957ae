//! Bad input is refused with upstream's words, and nothing of it is stored.

use anyhow::Result;
use coracle_testkit::Cluster;

const BINARY: &str = env!("CARGO_BIN_EXE_coracle");

fn service(name: &str, node_port: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{type: NodePort, selector: {{a: b}}, ports: [{{port: 80, nodePort: {node_port}}}]}}
"
    )
}

#[test]
fn refusals_name_field_and_reason() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    cluster.apply(&service("taken", "30100"))?;
    let replica_set = "apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: rs}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: b}}
    spec: {containers: [{name: c, image: i}]}
";
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{{spec}}}\n");
    let cases = [
        (service("low", "29999"), "The range of valid ports is 30000-32767"),
        (
            service("twice", "30100"),
            "spec.ports[0].nodePort: Invalid value: 30100: provided port is already allocated",
        ),
        (
            service("Bad_Name", "30101"),
            "metadata.name: Invalid value: \"Bad_Name\"",
        ),
        (service("words", "many"), "nodePort"),
        (
            replica_set.to_owned(),
            "`selector` does not match template `labels`",
        ),
        (pod("containers: []"), "spec.containers: Required value"),
        (
            pod("containers: [{name: c, image: i, imagePullPolicy: Often}]"),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            pod("containers: [{name: c, image: i}], sandwich: ham"),
            "unknown field \"spec.sandwich\"|ValidationError(Pod.spec): unknown field \"sandwich\"",
        ),
        ("a: [b".to_owned(), "error parsing"),
        (
            "apiVersion: v1\nkind: Sandwich\nmetadata: {name: s}\n".to_owned(),
            "no matches for kind \"Sandwich\" in version \"v1\"",
        ),
    ];
    for (manifest, message) in cases {
        let done = cluster.kubectl_stdin(&["create", "-f", "-"], &manifest)?;
        assert!(!done.ok, "accepted:\n{manifest}{}", done.stdout);
        // An older kubectl says some of it by itself, in words of its own: those stand behind the bar.
        assert!(
            message.split('|').any(|message| done.stderr.contains(message)),
            "wanted {message:?}\ngot {}",
            done.stderr
        );
    }
    let stored = cluster.kubectl(&["get", "pods,rs,svc", "-o", "name"])?;
    assert_eq!(stored, "service/kubernetes\nservice/taken\n");

    // An unknown field may pass with a warning, when asked.
    let sandwich = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"sandwich": "ham",
        "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Never"}]}}"#;
    let pods = "/api/v1/namespaces/default/pods?fieldValidation";
    let done = cluster.kubectl_stdin(
        &["create", "--raw", &format!("{pods}=Strict"), "-f", "-"],
        sandwich,
    )?;
    assert!(
        !done.ok && done.stderr.contains("strict decoding error"),
        "{}",
        done.stderr
    );
    let done = cluster.kubectl_stdin(&["create", "--raw", &format!("{pods}=Warn"), "-f", "-"], sandwich)?;
    assert!(
        done.ok && done.stderr.contains("Warning: unknown field \"spec.sandwich\""),
        "{}",
        done.stderr
    );

    // Immutable fields.
    let done = cluster.try_kubectl(&[
        "patch",
        "svc",
        "taken",
        "-p",
        r#"{"spec":{"clusterIP":"10.96.0.77"}}"#,
    ])?;
    assert!(
        !done.ok && done.stderr.contains("may not change once set"),
        "{}",
        done.stderr
    );
    let done = cluster.try_kubectl(&["get", "pods", "missing"])?;
    assert_eq!(
        done.stderr,
        "Error from server (NotFound): pods \"missing\" not found\n"
    );
    let done = cluster.kubectl_stdin(&["create", "-f", "-"], &service("taken", "30102"))?;
    assert!(
        done.stderr.contains("Error from server (AlreadyExists)"),
        "{}",
        done.stderr
    );
    // A refused Service gave its port back.
    cluster.apply(&service("other", "30102"))?;
    cluster.kubectl(&["delete", "svc", "taken"])?;
    cluster.apply(&service("again", "30100"))?;
    Ok(())
}

#[test]
fn nobody_gets_in_without_a_certificate_or_token() -> Result<()> {
    let cluster = Cluster::start(BINARY)?;
    let get = |path: &str, header: &[&str]| -> Result<String> {
        let output = cluster
            .network()
            .on_node("curl")
            .args([
                "--silent",
                "--insecure",
                "--max-time",
                "10",
                "--write-out",
                "\n%{http_code}",
            ])
            .args(header)
            .arg(format!("https://127.0.0.1:6443{path}"))
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let anonymous = get("/api/v1/pods", &[])?;
    assert!(anonymous.ends_with("\n403"), "{anonymous}");
    assert!(
        anonymous.contains("User \\\"system:anonymous\\\" cannot list resource \\\"pods\\\""),
        "{anonymous}"
    );
    let wrong = get("/api/v1/pods", &["--header", "Authorization: Bearer nonsense"])?;
    assert!(wrong.ends_with("\n401"), "{wrong}");
    assert!(get("/livez", &[])?.ends_with("\n200"));
    // A service account's token opens what its roles say, and no more.
    let account = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}"#;
    let granted = cluster.kubectl_stdin(&["create", "--raw", account, "-f", "-"], request)?;
    let granted: serde_json::Value = serde_json::from_str(&granted.stdout)?;
    let bearer = format!(
        "Authorization: Bearer {}",
        granted["status"]["token"].as_str().unwrap_or_default()
    );
    let refused = get("/api/v1/namespaces/default/pods", &["--header", &bearer])?;
    assert!(
        refused.ends_with("\n403") && refused.contains("system:serviceaccount:default:default"),
        "{refused}"
    );
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "see",
        "--clusterrole=view",
        "--serviceaccount=default:default",
    ])?;
    let allowed = get("/api/v1/namespaces/default/pods", &["--header", &bearer])?;
    assert!(allowed.ends_with("\n200"), "{allowed}");
    Ok(())
}
