//! What plugs into the API server: authentication, authorisation, admission, and subresources that are no
//! stored objects. Upstream: `authenticator.Request`, `authorizer.Authorizer`, `admission.Interface`,
//! `rest.Connecter`.

use crate::request::{Attributes, Body, UserInfo};
use coracle_meta::{GroupResource, GroupVersionKind, Status};
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Sees the name and the labels of an object; `Break` to see no more.
pub type VisitLabels<'a> = dyn FnMut(&str, &[(Box<str>, Box<str>)]) -> ControlFlow<()> + 'a;

/// Reads of stored objects that wait for nothing: authorisers, admission and allocators use it on every request.
pub trait Reader: Send + Sync {
    /// The object, in its storage version. An empty namespace is a cluster-scoped object. Parses bytes:
    /// who asks often keeps the result and compares [`Reader::changed_at`].
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Value>;
    /// All objects of the resource, of one namespace or (`None`) of all, in order of namespace and name.
    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Value>;
    /// Shows name and labels of every object of a resource in a namespace, without parsing any, until `visit` says stop.
    fn visit_labels(&self, resource: &GroupResource, namespace: &str, visit: &mut VisitLabels<'_>);
    /// The revision of the resource's last change (0 before the first): an index built from [`Reader::list`]
    /// is current while this stays the same. Ask before listing.
    fn changed_at(&self, resource: &GroupResource) -> u64;
}

/// Finds out who calls.
pub trait Authenticator: Send + Sync {
    /// `Ok(None)` when the request carries no credentials that this authenticator knows, an error (401) when it
    /// carries bad ones. `peer` is the client's certificate chain, end entity first, already verified against the
    /// cluster's CA by TLS.
    fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: &[CertificateDer<'static>],
        reader: &dyn Reader,
    ) -> Result<Option<UserInfo>, Status>;
}

/// An authoriser's verdict. The reason of a denial is shown to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Refuse, whatever other authorisers say.
    Deny(String),
    /// Not mine to allow.
    NoOpinion(String),
}

/// Decides whether a caller may do something.
pub trait Authorizer: Send + Sync {
    /// The verdict about one request.
    fn authorize(&self, attributes: &Attributes, reader: &dyn Reader) -> Decision;
}

/// What admission looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object, by PUT, PATCH or a subresource.
    Update,
    /// A deletion; `object` is absent.
    Delete,
    /// exec, attach, port-forward, proxy.
    Connect,
}

/// One object on its way into (or out of) the store. `attributes.name` may be empty on create; `object` then has
/// its generated name already, and its uid.
pub struct AdmissionRequest<'a> {
    /// What happens.
    pub operation: Operation,
    /// Who asks for what.
    pub attributes: &'a Attributes,
    /// The kind of `object`.
    pub kind: &'a GroupVersionKind,
    /// The new object, defaulted.
    pub object: Option<&'a mut Value>,
    /// The stored object that is updated or deleted.
    pub old: Option<&'a Value>,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// `DeleteOptions` and the like, or null.
    pub options: &'a Value,
    /// Becomes `Warning` headers.
    pub warnings: Vec<String>,
}

/// Checks and completes objects between decoding and the store. Methods are called in the order in which they are
/// listed here; each plugin sees what the earlier ones did.
pub trait Admission: Send + Sync {
    /// May change the object. Runs after defaulting and before validation.
    fn admit(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let _ = (request, reader);
        Ok(())
    }
    /// May only refuse. Runs after the kind's own validation.
    fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let _ = (request, reader);
        Ok(())
    }
    /// Called exactly once after every `admit` that succeeded, however the request ended: `committed` says whether
    /// the object reached the store (never for a dry run). Allocators roll back or release here.
    fn finish(&self, request: &AdmissionRequest, committed: bool) {
        let _ = (request, committed);
    }
    /// An object has left the store, by whatever request.
    fn removed(&self, resource: &GroupResource, old: &Value) {
        let _ = (resource, old);
    }
}

/// Serves a subresource, or a resource that is not stored (`tokenreviews`), by itself. The caller is authorised.
pub trait Connector: Send + Sync {
    /// Answers the request; an error becomes its `Status`.
    fn connect(
        &self,
        attributes: Attributes,
        request: Request<Body>,
        reader: Arc<dyn Reader>,
    ) -> BoxFuture<'static, Result<Response<Body>, Status>>;
}
