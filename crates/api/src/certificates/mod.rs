//! The kinds of the group `certificates.k8s.io`. Upstream: `pkg/apis/certificates`,
//! `pkg/registry/certificates`. Requests and certificates are parsed where they are signed.

pub(crate) mod certificate_signing_request;
pub(crate) mod cluster_trust_bundle;
pub(crate) mod pod_certificate_request;
