//! The environment of a container. Upstream: `Kubelet.makeEnvironmentVariables`.

pub mod downward_api;
pub mod expansion;
pub mod service_links;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where values come from. An absent ConfigMap or Secret is one that does not exist.
pub struct Sources<'a> {
    /// ConfigMaps of the pod's namespace by name.
    pub config_maps: &'a BTreeMap<String, Arc<ConfigMap>>,
    /// Secrets of the pod's namespace by name.
    pub secrets: &'a BTreeMap<String, Arc<Secret>>,
    /// All Services.
    pub services: &'a [Arc<Service>],
    /// What the pod may learn about itself.
    pub downward_api: downward_api::Context<'a>,
}

/// Names of the ConfigMaps and Secrets that a container's environment needs.
pub fn references(container: &Container) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut config_maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for source in container.env_from.iter().flatten() {
        config_maps.extend(source.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|v| v.value_from.as_ref())
    {
        config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// The variables in the order of their declaration, those of Services last. The error is the message of
/// `CreateContainerConfigError`.
pub fn variables(
    pod: &Pod,
    container: &Container,
    sources: &Sources<'_>,
) -> Result<Vec<(String, String)>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod
        .spec
        .as_ref()
        .is_none_or(|s| s.enable_service_links != Some(false));
    let services = service_links::variables(sources.services.iter().map(|s| &**s), namespace, links);
    let mut own = Variables::default();
    add_env_from(&mut own, container, sources)?;
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => expansion::expand(value, |name| {
                own.get(name).or_else(|| services.get(name)).cloned()
            }),
            (_, Some(source)) => match from_source(pod, container, source, sources, namespace)? {
                Some(value) => value,
                None => continue,
            },
            _ => String::new(),
        };
        own.set(variable.name.clone(), value);
    }
    let links = services.into_iter().filter(|(name, _)| own.get(name).is_none());
    let links: Vec<(String, String)> = links.collect();
    let mut all = own.in_order();
    all.extend(links);
    Ok(all)
}

/// A command or arguments with references to `variables` replaced.
pub fn expand_command(command: &[String], variables: &[(String, String)]) -> Vec<String> {
    let lookup = |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    command
        .iter()
        .map(|part| expansion::expand(part, lookup))
        .collect()
}

#[derive(Default)]
struct Variables {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Variables {
    fn get(&self, name: &str) -> Option<&String> {
        self.values.get(name)
    }
    fn set(&mut self, name: String, value: String) {
        if self.values.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }
    fn in_order(mut self) -> Vec<(String, String)> {
        let order = std::mem::take(&mut self.order);
        order
            .into_iter()
            .filter_map(|name| self.values.remove(&name).map(|value| (name, value)))
            .collect()
    }
}

fn add_env_from(own: &mut Variables, container: &Container, sources: &Sources<'_>) -> Result<(), String> {
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match sources.config_maps.get(&reference.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        own.set(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(not_found("configmap", &reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match sources.secrets.get(&reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        own.set(format!("{prefix}{key}"), lossy(&value.0));
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(not_found("secret", &reference.name)),
            }
        }
    }
    Ok(())
}

/// Nothing if the source is optional and absent.
fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    sources: &Sources<'_>,
    namespace: &str,
) -> Result<Option<String>, String> {
    if let Some(reference) = &source.field_ref {
        return downward_api::field(pod, &reference.field_path, &sources.downward_api).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return downward_api::resource(pod, Some(container), selector, &sources.downward_api).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let map = sources.config_maps.get(&reference.name);
        let value = map.map(|m| m.data.as_ref().and_then(|d| d.get(&reference.key)).cloned());
        return required(
            value,
            optional,
            || not_found("configmap", &reference.name),
            || {
                format!(
                    "couldn't find key {} in ConfigMap {namespace}/{}",
                    reference.key, reference.name
                )
            },
        );
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let secret = sources.secrets.get(&reference.name);
        let value = secret.map(|s| {
            s.data
                .as_ref()
                .and_then(|d| d.get(&reference.key))
                .map(|v| lossy(&v.0))
        });
        return required(
            value,
            optional,
            || not_found("secret", &reference.name),
            || {
                format!(
                    "couldn't find key {} in Secret {namespace}/{}",
                    reference.key, reference.name
                )
            },
        );
    }
    Ok(Some(String::new()))
}

fn required(
    found: Option<Option<String>>,
    optional: bool,
    no_object: impl Fn() -> String,
    no_key: impl Fn() -> String,
) -> Result<Option<String>, String> {
    match found {
        Some(Some(value)) => Ok(Some(value)),
        _ if optional => Ok(None),
        Some(None) => Err(no_key()),
        None => Err(no_object()),
    }
}

fn not_found(kind: &str, name: &str) -> String {
    format!("{kind} {name:?} not found")
}

/// An environment holds C strings; upstream passes the bytes through a Go string.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
