//! `svc/NAME` and `pod/NAME` as people type them for kubectl.

use std::str::FromStr;

/// A Service by its name: `svc/web`, `service/web`, `web`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceReference(String);

impl ServiceReference {
    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceReference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = match text.split_once('/') {
            None => text,
            Some(("svc" | "service" | "services", name)) => name,
            Some((other, _)) => return Err(format!("{other:?} is no Service: give svc/NAME")),
        };
        if name.is_empty() || name.contains('/') {
            return Err("give svc/NAME".to_owned());
        }
        Ok(Self(name.to_owned()))
    }
}

/// A Pod by its name: `pod/web-0`, `web-0`, and `pod/shop/web-0` for one of another namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodReference {
    /// The namespace, if one is named.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl FromStr for PodReference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, name) = match parts.as_slice() {
            [name] | ["po" | "pod" | "pods", name] => (None, *name),
            ["po" | "pod" | "pods", namespace, name] => (Some((*namespace).to_owned()), *name),
            _ => return Err("give pod/NAME or pod/NAMESPACE/NAME".to_owned()),
        };
        if name.is_empty() {
            return Err("give pod/NAME or pod/NAMESPACE/NAME".to_owned());
        }
        Ok(Self {
            namespace,
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_as_kubectl_takes_them() {
        for text in ["svc/web", "service/web", "services/web", "web"] {
            let service: ServiceReference = text.parse().expect("a Service");
            assert_eq!(service.name(), "web");
        }
        for text in ["pod/web", "svc/", "svc/a/b", ""] {
            assert!(text.parse::<ServiceReference>().is_err(), "{text}");
        }
        let pod = |text: &str| text.parse::<PodReference>().map(|p| (p.namespace, p.name));
        assert_eq!(pod("pod/a"), Ok((None, "a".into())));
        assert_eq!(pod("a"), Ok((None, "a".into())));
        assert_eq!(pod("pod/shop/a"), Ok((Some("shop".into()), "a".into())));
        assert!(pod("deployment/a/b").is_err() && pod("pod/").is_err());
    }
}
