//! From stored bytes to what the client asked for: objects, lists, tables, metadata only; JSON or YAML.
//! Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/response.go`, `…/responsewriters`.

use super::call::Call;
use super::conversion;
use super::object::{parse, prefix};
use crate::http::{body, response};
use crate::negotiation::{Encoding, Form, MediaType};
use crate::request::Body;
use crate::table::{self, Include};
use bytes::Bytes;
use coracle_api::resources::ApiResource;
use coracle_api::strategy::Strategy;
use coracle_api::table::{SCALE, TableSpec};
use coracle_meta::Status;
use coracle_meta::object::ObjectExt;
use coracle_store::Object;
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// Large bodies are sent in pieces of about this size.
pub(crate) const CHUNK: usize = 64 << 10;

/// The result of a request.
pub(crate) enum Content {
    /// An object as it is in the store.
    Stored(Arc<Object>),
    /// What a dry run would have stored, in the storage version.
    Unstored(Value),
    /// The last state of an object that this update has removed, in the storage version.
    Removed(Value),
    /// Several objects.
    List(List),
    /// No object.
    Status(Box<Status>),
    /// A `Scale`, in its final form.
    Scale(Value),
    /// Several objects that are made on request and not stored.
    Made(Vec<Value>),
}

/// Several objects at one revision.
pub(crate) struct List {
    /// The objects.
    pub objects: Vec<Arc<Object>>,
    /// The revision.
    pub revision: u64,
    /// Where the next LIST continues.
    pub continue_token: Option<String>,
    /// How many objects are left, where that is known.
    pub remaining: Option<usize>,
}

impl List {
    /// The members of its metadata.
    fn metadata(&self) -> String {
        let mut out = format!("\"resourceVersion\":\"{}\"", self.revision);
        if let Some(token) = &self.continue_token {
            out += &format!(",\"continue\":\"{token}\"");
        }
        if let Some(remaining) = self.remaining {
            out += &format!(",\"remainingItemCount\":{remaining}");
        }
        out
    }
}

/// Writes objects of one resource in one form.
pub(crate) struct Renderer {
    resource: &'static ApiResource,
    table: &'static TableSpec,
    media: MediaType,
    include: Include,
    prefix: Vec<u8>,
    now: Timestamp,
}

impl Renderer {
    /// For the answer of a call.
    pub fn new(call: &Call) -> Result<Self, Status> {
        let table: &dyn Strategy = call.strategy;
        Ok(Self {
            resource: call.resource,
            table: table.table(),
            media: call.media,
            include: Include::parse(&call.uri)?,
            prefix: prefix(call.resource),
            now: Timestamp::now(),
        })
    }

    /// The response to a call.
    pub fn respond(mut self, code: StatusCode, content: Content) -> Response<Body> {
        let bytes: Bytes = match content {
            Content::List(list) => return self.list(list),
            Content::Status(status) => return self.encoded(code, &*status),
            Content::Scale(scale) => {
                self.table = &SCALE;
                self.one(&scale).into()
            }
            Content::Made(objects) => self.made(&objects).into(),
            Content::Stored(object) if self.is_verbatim() => object.bytes().clone(),
            Content::Stored(object) => self.one(&parse(&object)).into(),
            Content::Unstored(value) | Content::Removed(value) => self.one(&value).into(),
        };
        self.finished(code, bytes)
    }

    /// Whether stored bytes are the answer.
    fn is_verbatim(&self) -> bool {
        self.media.form == Form::Object && !conversion::is_converted(self.resource)
    }

    fn encoded(&self, code: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
        let encoding = self.media.encoding;
        response::of(code, encoding.content_type(), response::encode(value, encoding))
    }

    /// JSON bytes in the encoding that was asked for.
    fn finished(&self, code: StatusCode, json: Bytes) -> Response<Body> {
        match self.media.encoding {
            Encoding::Json => response::of(code, "application/json", json),
            Encoding::Yaml => {
                let value: Value = serde_json::from_slice(&json).expect("rendered here");
                self.encoded(code, &value)
            }
        }
    }

    fn one(&self, stored: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        self.push(stored, &self.whole(stored), true, &mut out);
        out
    }

    fn made(&self, objects: &[Value]) -> Vec<u8> {
        let mut out = self.list_head("");
        for (n, object) in objects.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            let whole = object.to_string().into_bytes();
            match self.media.form {
                Form::Object => out.extend_from_slice(&whole),
                Form::Metadata => table::push_partial(&whole, &mut out),
                Form::Table => {
                    table::push_row(self.table, object, &whole, self.include, self.now, &mut out);
                }
            }
        }
        out.extend_from_slice(b"]}");
        out
    }

    /// The object in the version of the request.
    fn whole(&self, stored: &Value) -> Vec<u8> {
        let value = conversion::from_storage(self.resource, stored.clone());
        serde_json::to_vec(&value).expect("API data has string keys")
    }

    /// Writes one object as it is watched; a table names its columns only where `columns` is set.
    pub fn push_object(&mut self, object: &Object, columns: bool, out: &mut Vec<u8>) {
        // Ages are of the moment: a watch goes on for long.
        self.now = Timestamp::now();
        if self.is_verbatim() {
            out.extend_from_slice(object.bytes());
            return;
        }
        let stored = parse(object);
        if conversion::is_converted(self.resource) {
            self.push(&stored, &self.whole(&stored), columns, out);
        } else {
            self.push(&stored, object.bytes(), columns, out);
        }
    }

    fn push(&self, stored: &Value, whole: &[u8], columns: bool, out: &mut Vec<u8>) {
        match self.media.form {
            Form::Object => out.extend_from_slice(whole),
            Form::Metadata => table::push_partial(whole, out),
            Form::Table => {
                let revision = Value::from(stored.resource_version());
                out.extend_from_slice(TABLE);
                out.extend_from_slice(format!("\"metadata\":{{\"resourceVersion\":{revision}}},").as_bytes());
                if columns {
                    table::push_columns(self.table, out);
                } else {
                    out.extend_from_slice(b"\"columnDefinitions\":null");
                }
                out.extend_from_slice(b",\"rows\":[");
                table::push_row(self.table, stored, whole, self.include, self.now, out);
                out.extend_from_slice(b"]}");
            }
        }
    }

    /// Writes one element of a list.
    fn push_item(&self, object: &Object, out: &mut Vec<u8>) {
        let bytes = object.bytes();
        match self.media.form {
            Form::Object if !conversion::is_converted(self.resource) => {
                // Elements do not repeat what the list says of their kind.
                match bytes.strip_prefix(&self.prefix[..]) {
                    Some(rest) => {
                        out.push(b'{');
                        out.extend_from_slice(rest);
                    }
                    None => out.extend_from_slice(bytes),
                }
            }
            Form::Object => out.extend_from_slice(&self.whole(&parse(object))),
            Form::Metadata => table::push_partial(bytes, out),
            Form::Table => {
                let stored = parse(object);
                match (self.include, conversion::is_converted(self.resource)) {
                    (Include::Object, true) => {
                        let whole = self.whole(&stored);
                        table::push_row(self.table, &stored, &whole, self.include, self.now, out);
                    }
                    _ => table::push_row(self.table, &stored, bytes, self.include, self.now, out),
                }
            }
        }
    }

    /// How a list with this metadata begins.
    fn list_head(&self, metadata: &str) -> Vec<u8> {
        let mut out = match self.media.form {
            Form::Object => format!(
                "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",",
                self.resource.list_kind(),
                self.resource.api_version()
            )
            .into_bytes(),
            Form::Metadata => {
                b"{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",".to_vec()
            }
            Form::Table => TABLE.to_vec(),
        };
        out.extend_from_slice(format!("\"metadata\":{{{metadata}}},").as_bytes());
        if self.media.form == Form::Table {
            table::push_columns(self.table, &mut out);
            out.extend_from_slice(b",\"rows\":[");
        } else {
            out.extend_from_slice(b"\"items\":[");
        }
        out
    }

    fn list(self, list: List) -> Response<Body> {
        let encoding = self.media.encoding;
        let mut chunks = self.list_chunks(list);
        if encoding == Encoding::Yaml {
            let json: Vec<u8> = chunks.flatten().collect();
            let value: Value = serde_json::from_slice(&json).expect("rendered here");
            return response::of(
                StatusCode::OK,
                encoding.content_type(),
                response::encode(&value, encoding),
            );
        }
        let first = chunks.next().unwrap_or_default();
        let body = match chunks.next() {
            None => body::full(first),
            Some(second) => body::stream(futures::stream::iter([first, second].into_iter().chain(chunks))),
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    /// The JSON of a list, piece by piece.
    fn list_chunks(self, list: List) -> impl Iterator<Item = Bytes> + Send + 'static {
        let mut buffer = self.list_head(&list.metadata());
        let mut objects = list.objects.into_iter();
        let mut first = true;
        let mut done = false;
        std::iter::from_fn(move || {
            if done {
                return None;
            }
            while buffer.len() < CHUNK {
                let Some(object) = objects.next() else {
                    buffer.extend_from_slice(b"]}");
                    done = true;
                    break;
                };
                if !std::mem::take(&mut first) {
                    buffer.push(b',');
                }
                self.push_item(&object, &mut buffer);
            }
            Some(Bytes::from(std::mem::take(&mut buffer)))
        })
    }

    /// Writes the object of a bookmark.
    pub fn push_bookmark(&self, revision: u64, initial_events_end: bool, out: &mut Vec<u8>) {
        let (api_version, kind) = match self.media.form {
            Form::Object => (self.resource.api_version(), self.resource.kind),
            Form::Metadata => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata"),
            Form::Table => {
                out.extend_from_slice(TABLE);
                out.extend_from_slice(
                    format!("\"metadata\":{{\"resourceVersion\":\"{revision}\"}},\"columnDefinitions\":null,\"rows\":[]}}")
                        .as_bytes(),
                );
                return;
            }
        };
        let mut object = serde_json::json!({
            "kind": kind,
            "apiVersion": api_version,
            "metadata": { "resourceVersion": revision.to_string(), "creationTimestamp": null },
        });
        if initial_events_end {
            object["metadata"]["annotations"] = serde_json::json!({ "k8s.io/initial-events-end": "true" });
        }
        serde_json::to_writer(out, &object).expect("writing to memory");
    }
}

const TABLE: &[u8] = b"{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",";
