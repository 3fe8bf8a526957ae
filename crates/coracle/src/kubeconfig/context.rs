//! A client from the user's kubeconfig, for the commands that look into a running cluster.
//! Upstream: `client-go/tools/clientcmd`. Credential plugins are not run.

use super::{default_path, load};
use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use clap::Args;
use coracle_client::tls_transport::TlsOptions;
use coracle_client::{Client, TlsTransport};
use http::Uri;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which cluster a command speaks to.
#[derive(Args, Debug, Clone)]
pub struct ContextArgs {
    /// Kubeconfig to use [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace [default: that of the context]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// A cluster to speak to.
pub struct Access {
    /// Speaks to its API server.
    pub client: Client,
    /// The namespace that is meant where none is named.
    pub namespace: String,
}

impl ContextArgs {
    /// Reads the kubeconfig. Nothing is sent yet.
    pub fn access(&self) -> Result<Access> {
        let file = match &self.kubeconfig {
            Some(file) => file.clone(),
            None => default_path().context("no home directory for a kubeconfig: give --kubeconfig")?,
        };
        if !file.exists() {
            bail!("no kubeconfig {}: `coracle up` writes one", file.display());
        }
        let config = load(&file)?;
        self.read(&config, file.parent().unwrap_or(Path::new(".")))
            .with_context(|| format!("cannot use the kubeconfig {}", file.display()))
    }

    fn read(&self, config: &Value, directory: &Path) -> Result<Access> {
        let name = match &self.context {
            Some(name) => name.as_str(),
            None => config["current-context"].as_str().unwrap_or_default(),
        };
        if name.is_empty() {
            bail!("it has no current context: give --context");
        }
        let context = named(config, "contexts", "context", name)?;
        let of_context = |key: &str| context[key].as_str().unwrap_or_default();
        let cluster = named(config, "clusters", "cluster", of_context("cluster"))?;
        let user = named(config, "users", "user", of_context("user"))?;
        let pem = |section: &Value, key: &str| material(section, key, directory);

        let server: Uri = cluster["server"]
            .as_str()
            .unwrap_or_default()
            .parse()
            .context("its server is no URL")?;
        let host = server.host().context("its server has no host")?;
        let certificate = pem(user, "client-certificate")?.zip(pem(user, "client-key")?);
        let options = TlsOptions {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: server.port_u16().unwrap_or(443),
            ca_pem: pem(cluster, "certificate-authority")?.context("it names no certificate authority")?,
            client_pem: certificate,
        };
        let mut client = Client::new(Arc::new(TlsTransport::new(&options)?));
        if let Some(token) = token(user, directory)? {
            client = client
                .with_bearer_token(token.trim())
                .context("its token is none")?;
        } else if options.client_pem.is_none() {
            bail!(
                "user {:?} has neither client certificate nor token",
                of_context("user")
            );
        }
        let namespace = self
            .namespace
            .as_deref()
            .unwrap_or_else(|| of_context("namespace"));
        Ok(Access {
            client,
            namespace: if namespace.is_empty() {
                "default"
            } else {
                namespace
            }
            .to_owned(),
        })
    }
}

/// The entry of a list that has this name.
fn named<'a>(config: &'a Value, list: &str, inner: &str, name: &str) -> Result<&'a Value> {
    let entries = config[list].as_array().into_iter().flatten();
    let entry = entries.into_iter().find(|entry| entry["name"] == name);
    entry
        .map(|entry| &entry[inner])
        .ok_or_else(|| anyhow!("it has no {inner} {name:?}"))
}

/// Certificates and keys stand in the file (`KEY-data`, base64) or in another one (`KEY`).
fn material(section: &Value, key: &str, directory: &Path) -> Result<Option<Vec<u8>>> {
    let data = format!("{key}-data");
    if let Some(text) = section[&data].as_str() {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        return bytes
            .map(Some)
            .with_context(|| format!("its {data} is not base64"));
    }
    let Some(file) = section[key].as_str() else {
        return Ok(None);
    };
    // Relative to the kubeconfig, as upstream reads it.
    let file = directory.join(file);
    std::fs::read(&file)
        .map(Some)
        .with_context(|| format!("cannot read {}", file.display()))
}

fn token(user: &Value, directory: &Path) -> Result<Option<String>> {
    if let Some(token) = user["token"].as_str() {
        return Ok(Some(token.to_owned()));
    }
    let Some(file) = user["tokenFile"].as_str() else {
        return Ok(None);
    };
    let file = directory.join(file);
    std::fs::read_to_string(&file)
        .map(Some)
        .with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args(context: Option<&str>, namespace: Option<&str>) -> ContextArgs {
        ContextArgs {
            kubeconfig: None,
            context: context.map(str::to_owned),
            namespace: namespace.map(str::to_owned),
        }
    }

    fn config(user: &Value) -> Value {
        let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        json!({
            "current-context": "a",
            "contexts": [
                {"name": "a", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
                {"name": "b", "context": {"cluster": "c", "user": "nobody"}},
            ],
            "clusters": [{"name": "c", "cluster": {
                "server": "https://[::1]:6443", "certificate-authority-data": encode(authority.cert.pem())}}],
            "users": [{"name": "u", "user": user}],
        })
    }

    #[test]
    fn the_current_context_and_its_namespace_are_the_default() {
        let config = config(&json!({"token": "t"}));
        let read = |args: ContextArgs| args.read(&config, Path::new("/")).expect("usable").namespace;
        assert_eq!(read(args(None, None)), "shop");
        assert_eq!(read(args(Some("a"), Some("other"))), "other");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |user: Value, context: Option<&str>| {
            let read = args(context, None).read(&config(&user), Path::new("/nowhere"));
            format!("{:#}", read.err().expect("refused"))
        };
        assert_eq!(error(json!({"token": "t"}), Some("x")), "it has no context \"x\"");
        assert_eq!(
            error(json!({"token": "t"}), Some("b")),
            "it has no user \"nobody\""
        );
        assert_eq!(
            error(json!({}), None),
            "user \"u\" has neither client certificate nor token"
        );
        let file = error(json!({"client-certificate": "me.crt"}), None);
        assert!(file.starts_with("cannot read /nowhere/me.crt"), "{file}");
    }
}
