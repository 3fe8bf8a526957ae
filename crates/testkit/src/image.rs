//! A busybox image made on the spot from Debian's `busybox-static`: a shell, nc, wget and httpd without a registry.

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;

/// What the image is called.
pub const BUSYBOX: &str = "coracle.local/busybox:1.0";

const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "env", "false", "hostname", "httpd", "id", "kill", "ls", "mkdir", "nc", "nslookup",
    "ps", "rm", "sleep", "touch", "true", "wget", "wc", "grep", "head", "seq", "date", "mount", "stat",
    "test", "printf", "ip", "netstat", "dd", "tail", "ln", "chmod", "tr", "sort", "uniq", "awk", "sed",
    "xargs", "which", "stty",
];

/// A Deployment of Pods that answer with their names, in HTTP on port 8080, which they call `web`.
pub fn web_servers(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: {name}
        image: {BUSYBOX}
        command: [sh, -c, 'hostname > /www/index.html; exec httpd -f -p 8080 -h /www']
        ports: [{{name: web, containerPort: 8080}}]
        readinessProbe: {{tcpSocket: {{port: web}}, periodSeconds: 1}}
"
    )
}

/// Writes a docker-archive of the image.
pub fn write_busybox(archive: &Path) -> Result<()> {
    let layer = layer()?;
    let hex = |bytes: &[u8]| {
        Sha256::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    };
    let config = serde_json::to_vec(&json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    }))?;
    let config_name = format!("{}.json", hex(&config));
    let manifest = serde_json::to_vec(&json!([
        {"Config": config_name, "RepoTags": [BUSYBOX], "Layers": ["layer.tar"]}
    ]))?;
    let mut tar = tar::Builder::new(File::create(archive)?);
    for (name, content) in [
        (config_name.as_str(), &config),
        ("layer.tar", &layer),
        ("manifest.json", &manifest),
    ] {
        append(&mut tar, name, 0o644, content)?;
    }
    tar.into_inner()?;
    Ok(())
}

fn layer() -> Result<Vec<u8>> {
    let busybox = std::fs::read("/bin/busybox").context("/bin/busybox (Debian package busybox-static)")?;
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "bin/busybox", 0o755, &busybox)?;
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    for (directory, mode) in [("tmp/", 0o1777), ("etc/", 0o755), ("www/", 0o755)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(mode);
        tar.append_data(&mut header, directory, std::io::empty())?;
    }
    append(
        &mut tar,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )?;
    append(&mut tar, "etc/group", 0o644, b"root:x:0:\nnobody:x:65534:\n")?;
    Ok(tar.into_inner()?)
}

fn append<W: std::io::Write>(tar: &mut tar::Builder<W>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, content)?;
    Ok(())
}
