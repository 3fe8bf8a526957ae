//! Images end to end: from an archive or a registry to a running container.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_oci::{ContainerSpec, Credentials, Error, ImageStore, OciRuntime, PullConfig, User};
use support::{Node, run};

const REGISTRY: &str = "127.0.0.1:5000";
/// `user` with password `secret`, at the lowest cost of bcrypt.
const PASSWORDS: &str = "user:$2y$04$qy0dW3RarPEeKRwdqaW6S.8LEeKBoZqjdJVS1TDG1H4QwvvMvyMP2\n";

/// A container of an image, as the node makes one of it.
fn container(node: &Node, id: &str, image: &coracle_oci::Image, argv: &[&str]) -> ContainerSpec {
    let config = &image.config;
    let cmd = if argv.is_empty() {
        config.cmd.clone()
    } else {
        argv.iter().map(|arg| (*arg).to_owned()).collect()
    };
    ContainerSpec {
        layers: image.layers.clone(),
        argv: config.entrypoint.iter().cloned().chain(cmd).collect(),
        env: config.env.clone(),
        cwd: config.working_dir.clone(),
        user: User {
            user: config.user.clone(),
            ..User::default()
        },
        ..node.container_spec(id, &[])
    }
}

#[test]
fn a_loaded_image_runs_and_stays_while_it_does() {
    run(async {
        let mut node = Node::new(OciRuntime::Builtin).await;
        let archive = node.directory.join("image.tar");
        support::docker_archive(&archive, "demo/app:v1", &node.layers[0]);
        let images = node.config.images.clone();
        assert_eq!(images.load_archive(&archive).unwrap(), ["docker.io/demo/app:v1"]);
        let image = images.resolve("demo/app:v1").unwrap().unwrap();
        assert_eq!(image.layers.len(), 2);
        node.pod("p").await;
        let spec = container(&node, "a", &image, &[]);
        let (exit, output) = node.finish("p", spec).await;
        assert_eq!(
            (exit.code, output.as_str()),
            (0, "1000 /srv from-image second layer\n")
        );
        let mut spec = container(&node, "b", &image, &["cat /message; sleep 1000"]);
        spec.log_path = "b/0.log".into();
        node.start("p", spec).await;
        node.restart().await;
        images.remove("demo/app:v1").unwrap();
        assert!(images.list().unwrap().is_empty());
        assert!(
            image.layers.iter().all(|layer| layer.is_dir()),
            "a running container lost its layers"
        );
        assert_eq!(node.exec("b", &["cat", "/message"]).await.1, "second layer\n");
        node.runtime.remove_pod("p").await.unwrap();
        // Whoever opens the store next cleans up.
        ImageStore::open(node.config.images.root()).unwrap();
        assert!(image.layers.iter().all(|layer| !layer.exists()));
        node.done().await;
    });
}

/// Runs a test of this program in a network namespace of its own, where it may listen on any port.
fn alone(test: &str) {
    let script = "ip link set lo up && exec \"$@\"";
    let program = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", script, "sh"])
        .arg(program)
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("CORACLE_TEST_ALONE", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed");
}

/// Debian's docker-registry.
struct Registry(Child);

impl Registry {
    fn start(directory: &Path, with_passwords: bool) -> Self {
        let storage = directory.join("registry");
        let passwords = directory.join("htpasswd");
        std::fs::write(&passwords, PASSWORDS).unwrap();
        let auth = if with_passwords {
            format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                passwords.display()
            )
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: {REGISTRY}}}\n{auth}",
            storage.display()
        );
        let file = directory.join("config.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        while std::net::TcpStream::connect(REGISTRY).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Self(child)
    }

    /// Pushes an archive with skopeo.
    fn push(&self, archive: &Path, name: &str, arguments: &[&str]) {
        let status = Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
            .args(arguments)
            .arg(format!("docker-archive:{}", archive.display()))
            .arg(format!("docker://{REGISTRY}/{name}"))
            .status()
            .expect("skopeo is installed");
        assert!(status.success());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn pulls_from_a_registry() {
    alone("registry_without_passwords");
}

#[test]
#[ignore = "a part of another test, which runs it in a network namespace of its own"]
fn registry_without_passwords() {
    if std::env::var_os("CORACLE_TEST_ALONE").is_none() {
        return;
    }
    run(async {
        let node = Node::new(OciRuntime::Builtin).await;
        let registry = Registry::start(&node.directory, false);
        let archive = node.directory.join("image.tar");
        support::docker_archive(&archive, "demo/app:v1", &node.layers[0]);
        registry.push(&archive, "demo/app:v1", &[]);
        let images = node.config.images.clone();
        let name = format!("{REGISTRY}/demo/app:v1");
        let received = Arc::new(AtomicU64::new(0));
        let seen = received.clone();
        let progress = move |progress: coracle_oci::PullProgress| {
            assert!(progress.received <= progress.total, "{progress:?}");
            seen.fetch_max(progress.received, Ordering::Relaxed);
        };
        let image = images
            .pull(&name, None, &PullConfig::default(), progress)
            .await
            .unwrap();
        assert_eq!(received.load(Ordering::Relaxed), image.size);
        assert_eq!(image.references, std::slice::from_ref(&name));
        assert_eq!(images.resolve(&name).unwrap().unwrap(), image);
        // Loading what the pull brought shares everything: it is the same image.
        images.load_archive(&archive).unwrap();
        assert_eq!(images.resolve("demo/app:v1").unwrap().unwrap().id, image.id);

        // By digest, as a pod may name it.
        let by_digest = image.digests[0].clone();
        assert!(by_digest.starts_with(&format!("{REGISTRY}/demo/app@sha256:")));
        images.remove(&image.id).unwrap();
        let image = images
            .pull(&by_digest, None, &PullConfig::default(), |_| ())
            .await
            .unwrap();
        assert_eq!(image.digests, std::slice::from_ref(&by_digest));
        assert!(images.resolve(&by_digest).unwrap().is_some());

        let mut node = node;
        node.pod("p").await;
        let spec = container(&node, "a", &image, &["echo from registry"]);
        assert_eq!(node.finish("p", spec).await.1, "from registry\n");

        for missing in ["demo/app:v2", "demo/none:v1"] {
            let missing = format!("{REGISTRY}/{missing}");
            let error = images
                .pull(&missing, None, &PullConfig::default(), |_| ())
                .await
                .unwrap_err();
            assert!(
                matches!(&error, Error::ImageNotFound(name) if *name == missing),
                "{error:?}"
            );
        }
        drop(registry);
        let error = images
            .pull(&name, None, &PullConfig::default(), |_| ())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Pull { .. }), "{error:?}");
        assert!(error.to_string().contains("onnection refused"), "{error}");
        assert!(matches!(
            images.pull("a b", None, &PullConfig::default(), |_| ()).await,
            Err(Error::InvalidReference { .. })
        ));
        node.done().await;
    });
}

#[test]
fn pulls_with_a_password() {
    alone("registry_with_passwords");
}

#[test]
#[ignore = "a part of another test, which runs it in a network namespace of its own"]
fn registry_with_passwords() {
    if std::env::var_os("CORACLE_TEST_ALONE").is_none() {
        return;
    }
    run(async {
        let node = Node::new(OciRuntime::Builtin).await;
        let registry = Registry::start(&node.directory, true);
        let archive = node.directory.join("image.tar");
        support::docker_archive(&archive, "demo/app:v1", &node.layers[0]);
        registry.push(&archive, "secret/app:v1", &["--dest-creds", "user:secret"]);
        let images = &node.config.images;
        let name = format!("{REGISTRY}/secret/app:v1");
        let basic = |password: &str| {
            Some(Credentials::Basic {
                username: "user".to_owned(),
                password: password.to_owned(),
            })
        };
        for credentials in [None, basic("wrong")] {
            let error = images
                .pull(&name, credentials, &PullConfig::default(), |_| ())
                .await
                .unwrap_err();
            assert!(
                matches!(&error, Error::Unauthorized { reference, .. } if *reference == name),
                "{error:?}"
            );
        }
        assert!(images.list().unwrap().is_empty());
        let image = images
            .pull(&name, basic("secret"), &PullConfig::default(), |_| ())
            .await
            .unwrap();
        assert_eq!(image.config.working_dir, "/srv");
        node.done().await;
    });
}
