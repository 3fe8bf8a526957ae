//! Makes the image of a container present, by the pull policy. Upstream: `pkg/kubelet/images`.

use crate::kubelet::{Kubelet, describe};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use coracle_oci::{Credentials, Error, Image};
use coracle_pods::Observation;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use serde_json::Value;
use std::time::Instant;

/// Looks for the image or pulls it; `tell` hears of a pull that begins. Returns what the pod's worker is to know.
pub async fn ensure(
    kubelet: &Kubelet,
    pod: &Pod,
    container: &Container,
    tell: impl FnOnce(Observation),
) -> Observation {
    let name = container.name.clone();
    let reference = container.image.clone().unwrap_or_default();
    let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
    let failed = |reason: &str, message: String, event: String| Observation::ImageFailed {
        container: container.name.clone(),
        reason: reason.to_owned(),
        message,
        event,
    };
    if policy != "Always" {
        let images = kubelet.images.clone();
        let wanted = reference.clone();
        let found = tokio::task::spawn_blocking(move || images.resolve(&wanted)).await;
        match found {
            Ok(Ok(Some(image))) => {
                if kubelet.used_images.lock().insert(image.id.clone()) {
                    kubelet.report_wanted.notify_one();
                }
                let message = format!(
                    "Container image {reference:?} already present on machine and can be accessed by the pod"
                );
                return Observation::ImageReady {
                    container: name,
                    id: image_ref(&image),
                    message,
                };
            }
            Ok(Ok(None)) if policy == "Never" => {
                let text = format!("Container image {reference:?} is not present with pull policy of Never");
                return failed("ErrImageNeverPull", text.clone(), text);
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return failed_to_inspect(&name, &reference, &error),
            Err(error) => return failed("ImageInspectError", describe(&error), describe(&error)),
        }
    }
    tell(Observation::ImagePulling {
        container: name.clone(),
        image: reference.clone(),
    });
    let began = Instant::now();
    match pull(kubelet, pod, &reference).await {
        Ok(image) => {
            kubelet.report_wanted.notify_one();
            let took = go_duration(began.elapsed());
            let size = image.size;
            Observation::ImageReady {
                container: name,
                id: image_ref(&image),
                message: format!(
                    "Successfully pulled image {reference:?} in {took} ({took} including waiting). Image size: {size} bytes."
                ),
            }
        }
        Err(error) => {
            let message = describe(&error);
            let event = format!("Failed to pull image {reference:?}: {message}");
            match error {
                Error::InvalidReference { .. } => failed_to_inspect(&name, &reference, &error),
                _ => failed("ErrImagePull", message, event),
            }
        }
    }
}

/// The digest that `imageID` shows: with the repository if one is known.
pub fn image_ref(image: &Image) -> String {
    image.digests.first().unwrap_or(&image.id).clone()
}

fn failed_to_inspect(container: &str, reference: &str, error: &Error) -> Observation {
    let text = format!(
        "Failed to apply default image tag {reference:?}: {}",
        describe(error)
    );
    let (reason, message) = match error {
        Error::InvalidReference { .. } => ("InvalidImageName", text),
        _ => (
            "ImageInspectError",
            format!("Failed to inspect image {reference:?}: {}", describe(error)),
        ),
    };
    Observation::ImageFailed {
        container: container.to_owned(),
        reason: reason.to_owned(),
        message: message.clone(),
        event: message,
    }
}

/// Tries every credential that the pod's secrets hold for the registry, and last none.
async fn pull(kubelet: &Kubelet, pod: &Pod, reference: &str) -> Result<Image, Error> {
    let mut credentials: Vec<Option<Credentials>> = Vec::new();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let secrets = pod
        .spec
        .iter()
        .flat_map(|s| s.image_pull_secrets.iter().flatten());
    for secret in secrets {
        // A secret that is missing or cannot be read is no reason not to try without.
        if let Ok(Some(secret)) = kubelet.secrets.get(namespace, &secret.name, uid).await {
            credentials.extend(credentials_of(&secret, reference).map(Some));
        }
    }
    credentials.push(None);
    let mut refused = None;
    for credentials in credentials {
        let pulled = kubelet
            .images
            .pull(reference, credentials, &kubelet.config.pull, |_| {})
            .await;
        match pulled {
            // The first refusal is of the credentials that were meant for this registry.
            Err(error @ Error::Unauthorized { .. }) => refused = refused.or(Some(error)),
            other => return other,
        }
    }
    refused.map_or_else(|| Err(Error::ImageNotFound(reference.to_owned())), Err)
}

/// The credentials of a `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg` Secret for the registry of an
/// image. Upstream: `pkg/credentialprovider`.
fn credentials_of(secret: &Secret, reference: &str) -> Option<Credentials> {
    let data = secret.data.as_ref()?;
    let config: Value = if let Some(bytes) = data.get(".dockerconfigjson") {
        serde_json::from_slice::<Value>(&bytes.0)
            .ok()?
            .get("auths")?
            .clone()
    } else {
        serde_json::from_slice(&data.get(".dockercfg")?.0).ok()?
    };
    let image = normalized(reference);
    let mut entries: Vec<(String, &Value)> = config
        .as_object()?
        .iter()
        .map(|(registry, entry)| (normalized_registry(registry), entry))
        .collect();
    // The most specific path wins.
    entries.sort_by_key(|(registry, _)| std::cmp::Reverse(registry.len()));
    let (_, entry) = entries.into_iter().find(|(registry, _)| {
        image == *registry
            || image
                .strip_prefix(registry.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
    })?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|s| !s.is_empty());
    if let Some(token) = text("registrytoken") {
        return Some(Credentials::Bearer(token.to_owned()));
    }
    let pair = match (text("username"), text("password")) {
        (Some(username), Some(password)) => (username.to_owned(), password.to_owned()),
        _ => {
            let decoded = String::from_utf8(BASE64.decode(text("auth")?).ok()?).ok()?;
            let (username, password) = decoded.split_once(':')?;
            (username.to_owned(), password.to_owned())
        }
    };
    Some(Credentials::Basic {
        username: pair.0,
        password: pair.1,
    })
}

/// `REGISTRY/REPOSITORY`, Docker's own registry spelt out.
fn normalized(reference: &str) -> String {
    let name = reference.split('@').next().unwrap_or_default();
    let (head, tail) = name.split_once('/').unwrap_or(("", name));
    let names_registry = head.contains(['.', ':']) || head == "localhost";
    let tail = if names_registry { tail } else { name };
    let tail = tail.rsplit_once(':').map_or(tail, |(name, _)| name);
    let registry = if names_registry { head } else { "docker.io" };
    if registry == "docker.io" && !tail.contains('/') {
        format!("docker.io/library/{tail}")
    } else {
        format!("{registry}/{tail}")
    }
}

/// Keys of Docker's configuration: `https://index.docker.io/v1/`, `registry.example:5000`.
fn normalized_registry(key: &str) -> String {
    let bare = key.trim_start_matches("https://").trim_start_matches("http://");
    let bare = bare
        .trim_end_matches('/')
        .trim_end_matches("/v1")
        .trim_end_matches("/v2");
    match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

/// Go's `Duration.String` cut to milliseconds: `432ms`, `1.5s`, `1m2.5s`.
fn go_duration(duration: std::time::Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let fraction = format!("{:03}", rest % 1000);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{dot}{fraction}s", rest / 1000);
    if minutes == 0 {
        seconds
    } else {
        format!("{minutes}m{seconds}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};
    use std::time::Duration;

    #[test]
    fn credentials_are_found_by_registry() {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": BASE64.encode("me:hub")},
            "registry.example:5000": {"username": "you", "password": "all"},
            "registry.example:5000/team": {"username": "you", "password": "team"},
        }});
        let secret: Secret = from_value(json!({"type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": BASE64.encode(config.to_string())}}))
        .expect("a Secret");
        let of = |reference: &str| match credentials_of(&secret, reference) {
            Some(Credentials::Basic { username, password }) => format!("{username}:{password}"),
            _ => String::new(),
        };
        assert_eq!(of("busybox"), "me:hub");
        assert_eq!(of("docker.io/library/busybox:1@sha256:00"), "me:hub");
        assert_eq!(of("registry.example:5000/app:v1"), "you:all");
        assert_eq!(of("registry.example:5000/team/app"), "you:team");
        assert_eq!(of("registry.example:5000/teams/app"), "you:all");
        assert_eq!(of("ghcr.io/x/y"), "");
    }

    #[test]
    fn durations_look_like_gos() {
        let of = |millis| go_duration(Duration::from_millis(millis));
        assert_eq!(
            (of(432), of(1500), of(2000)),
            ("432ms".into(), "1.5s".into(), "2s".into())
        );
        assert_eq!(of(62_050), "1m2.05s");
    }
}
