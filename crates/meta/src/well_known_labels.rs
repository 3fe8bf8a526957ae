//! Labels whose meaning Kubernetes defines, where several crates read them. Upstream: `well_known_labels.go` of the API
//! groups.

/// On an EndpointSlice: the Service, in the same namespace, that it belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
