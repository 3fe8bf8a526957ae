//! Who may use the node's API: members of `system:masters` (the API server is one), and whom the API server allows
//! `nodes/proxy` of this node. Upstream: `pkg/kubelet/server/auth.go`.

use super::{Reply, plain};
use crate::kubelet::Kubelet;
use coracle_meta::GroupVersionResource;
use http::{Method, StatusCode};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

const MASTERS: &str = "system:masters";

/// The subject of a verified client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Common name.
    name: String,
    /// Organizations.
    groups: Vec<String>,
}

impl User {
    /// Nothing if the certificate cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject
            .iter_organization()
            .filter_map(|o| o.as_str().ok().map(str::to_owned));
        Some(Self {
            name,
            groups: groups.collect(),
        })
    }
}

/// Refuses with 401 or 403.
pub async fn authorize(kubelet: &Kubelet, user: Option<&User>, method: &Method) -> Result<(), Reply> {
    let Some(user) = user else {
        return Err(plain(StatusCode::UNAUTHORIZED, "Unauthorized"));
    };
    if user.groups.iter().any(|group| group == MASTERS) || review(kubelet, user, method).await {
        return Ok(());
    }
    let message = format!(
        "Forbidden (user={}, verb={}, resource=nodes, subresource(s)=[proxy])",
        user.name,
        verb(method)
    );
    Err(plain(StatusCode::FORBIDDEN, message))
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// Asks the API server. No answer is a no.
async fn review(kubelet: &Kubelet, user: &User, method: &Method) -> bool {
    let reviews = GroupVersionResource::new("authorization.k8s.io", "v1", "subjectaccessreviews");
    let groups = [user.groups.as_slice(), &["system:authenticated".to_owned()]].concat();
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user.name,
            "groups": groups,
            "resourceAttributes": {
                "verb": verb(method),
                "resource": "nodes",
                "subresource": "proxy",
                "name": kubelet.config.name,
                "version": "v1",
            },
        }
    });
    match kubelet.client.create(&reviews, "", &body).await {
        Ok(answer) => answer.pointer("/status/allowed").and_then(Value::as_bool) == Some(true),
        Err(error) => {
            let error = error.describe();
            tracing::warn!(user = user.name, error, "access to the node's api not reviewed");
            false
        }
    }
}
