//! What happens to an authenticated request: authorisation, routing, and what every answer carries.

use super::response;
use crate::ApiServer;
use crate::authz::{authorize, forbidden};
use crate::negotiation;
use crate::plugin::{AdmissionRequest, Decision, Operation, Reader};
use crate::registry::call::{Call, Warnings};
use crate::registry::decode;
use crate::request::{Attributes, Body, UserInfo};
use coracle_api::resources::by_gvr;
use coracle_meta::{GroupVersionKind, Status};
use futures::FutureExt;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use serde_json::Value;
use std::panic::AssertUnwindSafe;

/// Longest text of one warning, and of all together. Upstream: `…/endpoints/filters/warning.go`.
const WARNING_BYTES: usize = 4 * 1024;

/// 404: nothing is served at this path.
pub(crate) fn no_such_resource() -> Status {
    let mut status = Status::failure(
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    status.details = Some(coracle_meta::StatusDetails::default());
    status
}

impl ApiServer {
    /// Answers a request of a caller who has been authenticated: authorisation and everything after it.
    pub async fn handle(&self, user: UserInfo, request: Request<Body>) -> Response<Body> {
        let warnings = Warnings::default();
        let attributes = Attributes::parse(user, request.method(), request.uri());
        let verb = attributes.verb.clone();
        // Answers that go on, and those of others, pass as they are.
        let streams = verb == "watch" || attributes.subresource == "proxy";
        let (uri, headers) = (request.uri().clone(), request.headers().clone());
        let head = request.method() == Method::HEAD;
        let answer = AssertUnwindSafe(self.route(attributes, request, warnings.clone())).catch_unwind();
        let mut response = match answer.await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => response::status(&status, &headers),
            Err(_) => {
                // The panic hook has logged where; one request must not take the server down.
                let status = Status::internal("this request caused apiserver to panic");
                response::status(&status, &headers)
            }
        };
        if !streams && response::is_for_people(&uri, &headers) {
            response = response::indented(response).await;
        }
        if head {
            *response.body_mut() = super::body::full("");
        }
        self.metrics.count(&verb, response.status());
        finish(&mut response, &headers, &warnings);
        response
    }

    async fn route(
        &self,
        attributes: Attributes,
        request: Request<Body>,
        warnings: Warnings,
    ) -> Result<Response<Body>, Status> {
        self.authorize(&attributes)?;
        if !attributes.is_resource_request {
            return self.discovery(&request);
        }
        let resource = by_gvr(
            &attributes.api_group,
            &attributes.api_version,
            &attributes.resource,
        )
        .ok_or_else(no_such_resource)?;
        if let Some(connector) = self.connector(&attributes) {
            if !attributes.subresource.is_empty() {
                self.admit_connection(&attributes, &resource.gvk())?;
            }
            let reader = self.registry.reader.clone();
            let request = without_protobuf(request).await?;
            return connector.connect(attributes, request, reader).await;
        }
        let answered = matches!(resource.plural, "bindings" | "componentstatuses");
        if attributes.subresource.is_empty() && !resource.is_stored() && !answered {
            // Reviews that nobody has plugged in.
            return Err(no_such_resource());
        }
        let (parts, body) = request.into_parts();
        check_scope(&attributes, resource.namespaced)?;
        let call = Call::new(attributes, resource, parts.uri, parts.headers, warnings)?;
        self.registry.clone().serve(call, body).await
    }

    fn authorize(&self, attributes: &Attributes) -> Result<(), Status> {
        match authorize(&self.config.authorizers, attributes, &*self.registry.reader) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(attributes, &reason)),
        }
    }

    /// Tells admission of an exec, a port-forward, a proxied request.
    fn admit_connection(&self, attributes: &Attributes, kind: &GroupVersionKind) -> Result<(), Status> {
        let options = Value::Null;
        let mut request = AdmissionRequest {
            operation: Operation::Connect,
            attributes,
            kind,
            object: None,
            old: None,
            dry_run: false,
            options: &options,
            warnings: Vec::new(),
        };
        let reader: &dyn Reader = &*self.registry.reader;
        for plugin in &self.config.admission {
            plugin.admit(&mut request, reader)?;
            let verdict = plugin.validate(&request, reader);
            plugin.finish(&request, false);
            verdict?;
        }
        Ok(())
    }
}

/// Connectors read JSON; Go clients send protobuf.
async fn without_protobuf(request: Request<Body>) -> Result<Request<Body>, Status> {
    if negotiation::content_type(request.headers()) != "application/vnd.kubernetes.protobuf" {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let bytes = super::body::read(body).await?;
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.remove(header::CONTENT_LENGTH);
    if bytes.is_empty() {
        return Ok(Request::from_parts(parts, super::body::full(bytes)));
    }
    let json = decode::protobuf_to_json(&bytes)?;
    Ok(Request::from_parts(parts, super::body::full(json)))
}

/// Objects in namespaces are made and named there only; others nowhere in a namespace.
fn check_scope(attributes: &Attributes, namespaced: bool) -> Result<(), Status> {
    let is_namespace = attributes.resource == "namespaces" && attributes.api_group.is_empty();
    if !namespaced && !attributes.namespace.is_empty() && !is_namespace {
        return Err(no_such_resource());
    }
    let verb = attributes.verb.as_str();
    let many = matches!(verb, "list" | "watch");
    let named = !attributes.name.is_empty();
    let misplaced = match verb {
        "create" => named && attributes.subresource.is_empty(),
        "update" | "patch" => !named,
        _ => false,
    };
    if misplaced || (namespaced && attributes.namespace.is_empty() && !many) {
        return Err(Status::failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    Ok(())
}

fn finish(response: &mut Response<Body>, request_headers: &http::HeaderMap, warnings: &Warnings) {
    let audit_id = HeaderName::from_static("audit-id");
    let id = match request_headers.get(&audit_id) {
        Some(id) => id.clone(),
        None => HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("hex digits and dashes"),
    };
    let headers = response.headers_mut();
    headers.insert(audit_id, id);
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    let mut room = WARNING_BYTES;
    for text in warnings.take() {
        room = room.saturating_sub(text.len());
        // A text that is no header value cannot be shown; nothing else can be done about it here.
        if room > 0
            && let Ok(value) = HeaderValue::from_str(&format!("299 - {}", quote(&text)))
        {
            headers.append(header::WARNING, value);
        }
    }
}

/// A quoted string of HTTP, on one line.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
