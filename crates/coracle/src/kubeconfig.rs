//! The user's kubeconfig: a context named `coracle`, merged into the file as minikube and kind do.
//! Upstream: `client-go/tools/clientcmd`.

pub mod context;

use crate::certificates::{KeyPairPem, write};
use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

/// Name of the context, cluster and user that Coracle writes.
pub const CONTEXT: &str = "coracle";

/// Where the user's kubeconfig is: the first file of `$KUBECONFIG`, else `~/.kube/config` of the person who typed
/// the command, also when it was typed behind `sudo`.
pub fn default_path() -> Option<PathBuf> {
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()) {
        return std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty());
    }
    let home = match std::env::var("SUDO_USER") {
        Ok(user) if user != "root" => home_of(&user).or_else(|| std::env::var_os("HOME").map(PathBuf::from)),
        _ => std::env::var_os("HOME").map(PathBuf::from),
    };
    home.map(|home| home.join(".kube/config"))
}

fn home_of(user: &str) -> Option<PathBuf> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(5).map(PathBuf::from)
}

/// Adds (or renews) the context in `file` and makes it the current one; everything else in the file stays.
pub fn merge(file: &Path, server: &str, ca: &str, admin: &KeyPairPem) -> Result<()> {
    let mut config = load(file)?;
    let encode = |text: &str| Value::from(base64(text.as_bytes()));
    let fields = config.as_object_mut().expect("load returns an object");
    set_named(
        fields,
        "clusters",
        "cluster",
        json!({"server": server, "certificate-authority-data": encode(ca)}),
    )?;
    set_named(
        fields,
        "users",
        "user",
        json!({"client-certificate-data": encode(&admin.certificate), "client-key-data": encode(&admin.key)}),
    )?;
    set_named(
        fields,
        "contexts",
        "context",
        json!({"cluster": CONTEXT, "user": CONTEXT}),
    )?;
    fields.insert("current-context".into(), CONTEXT.into());
    save(file, &config)
}

/// Takes the context out of `file` again. A file without it is left as it is.
pub fn remove(file: &Path) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    let mut config = load(file)?;
    let before = config.clone();
    let fields = config.as_object_mut().expect("load returns an object");
    for list in ["clusters", "users", "contexts"] {
        if let Some(entries) = fields.get_mut(list).and_then(Value::as_array_mut) {
            entries.retain(|entry| entry["name"] != CONTEXT);
        }
    }
    if fields.get("current-context").is_some_and(|c| c == CONTEXT) {
        fields.insert("current-context".into(), "".into());
    }
    if config == before {
        Ok(())
    } else {
        save(file, &config)
    }
}

fn load(file: &Path) -> Result<Value> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let mut config: Value = if text.trim().is_empty() {
        json!({})
    } else {
        serde_saphyr::from_str(&text).with_context(|| format!("{} is not valid YAML", file.display()))?
    };
    let fields = config
        .as_object_mut()
        .ok_or_else(|| anyhow!("{} is not a kubeconfig: it is not a mapping", file.display()))?;
    fields.entry("apiVersion").or_insert_with(|| "v1".into());
    fields.entry("kind").or_insert_with(|| "Config".into());
    fields.entry("preferences").or_insert_with(|| json!({}));
    Ok(config)
}

/// Puts the entry called [`CONTEXT`] into one of the file's lists of named things.
fn set_named(fields: &mut Map<String, Value>, list: &str, inner: &str, value: Value) -> Result<()> {
    let entries = fields.entry(list).or_insert_with(|| json!([]));
    if entries.is_null() {
        *entries = json!([]);
    }
    let entries = entries
        .as_array_mut()
        .ok_or_else(|| anyhow!("kubeconfig: {list} is not a list"))?;
    match entries.iter_mut().find(|entry| entry["name"] == CONTEXT) {
        // A context keeps what the person set in it, such as a default namespace.
        Some(entry) if inner == "context" && entry[inner].is_object() => {
            for (key, field) in value.as_object().into_iter().flatten() {
                entry[inner][key] = field.clone();
            }
        }
        Some(entry) => entry[inner] = value,
        None => entries.push(json!({"name": CONTEXT, inner: value})),
    }
    Ok(())
}

/// Writes the file with mode 0600. What root creates in somebody's home belongs to the home's owner.
fn save(file: &Path, config: &Value) -> Result<()> {
    let directory = file
        .parent()
        .filter(|d| !d.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let missing = !directory.exists();
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let owner = match fs::metadata(file) {
        Ok(meta) => Some((meta.uid(), meta.gid())),
        Err(_) => directory
            .parent()
            .filter(|_| directory.file_name().is_some_and(|n| n == ".kube"))
            .and_then(|home| fs::metadata(home).ok())
            .map(|meta| (meta.uid(), meta.gid())),
    };
    let text = serde_saphyr::to_string(config).context("cannot write the kubeconfig as YAML")?;
    write(file, &text, 0o600)?;
    if let Some((uid, gid)) = owner {
        // Best effort: without the right to give files away the file is already the caller's.
        let _ = chown(file, Some(uid), Some(gid));
        if missing {
            let _ = chown(directory, Some(uid), Some(gid));
        }
    }
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> KeyPairPem {
        KeyPairPem {
            certificate: "CERT".into(),
            key: "KEY".into(),
        }
    }

    #[test]
    fn merging_keeps_what_was_there_and_removing_takes_only_ours() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("config");
        fs::write(
            &file,
            "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n- name: work\n  cluster: {server: https://w}\n\
             contexts:\n- name: work\n  context: {cluster: work, user: me}\nusers:\n- name: me\n  user: {token: t}\n",
        )
        .expect("written");
        merge(&file, "https://127.0.0.1:6443", "CA", &pair()).expect("merged");
        merge(&file, "https://127.0.0.1:7443", "CA", &pair()).expect("merged again");
        let config = load(&file).expect("loaded");
        assert_eq!(config["current-context"], CONTEXT);
        assert_eq!(config["clusters"].as_array().expect("list").len(), 2);
        assert_eq!(
            config["clusters"][1]["cluster"]["server"],
            "https://127.0.0.1:7443"
        );
        remove(&file).expect("removed");
        let config = load(&file).expect("loaded");
        assert_eq!(config["users"], json!([{"name": "me", "user": {"token": "t"}}]));
        assert_eq!(config["current-context"], "");
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("config");
        fs::write(&file, "- a\n- b\n").expect("written");
        assert!(merge(&file, "https://x", "CA", &pair()).is_err());
        assert_eq!(fs::read_to_string(&file).expect("read"), "- a\n- b\n");
    }
}
