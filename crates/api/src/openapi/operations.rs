//! The paths of an API and what can be done at each, as OpenAPI describes them. `kubectl` looks there for the
//! query parameters that a server knows, `fieldValidation` above all.

use super::types::reference;
use crate::resources::{self, ApiResource, Subresource, Verb};
use crate::schema;
use coracle_meta::GroupVersionKind;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Version of OpenAPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V2,
    V3,
}

const META: &str = "apimachinery.pkg.apis.meta.v1.";

/// One path of the API.
pub(super) struct Path {
    pub(super) path: String,
    operations: Vec<Operation>,
}

/// A method on a path.
struct Operation {
    method: &'static str,
    action: &'static str,
    id: String,
    tag: String,
    gvk: GroupVersionKind,
    body: Body,
    /// Name of the type in the answer; text where there is none.
    answer: Option<&'static str>,
    query: &'static [(&'static str, &'static str)],
}

enum Body {
    None,
    /// An object of this type.
    Object(Option<&'static str>),
    Options,
    Patch,
}

const WRITE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
const PATCH: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const DELETE_COLLECTION: &[(&str, &str)] = &[
    ("continue", "string"),
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
];
const LOG: &[(&str, &str)] = &[
    ("container", "string"),
    ("follow", "boolean"),
    ("insecureSkipTLSVerifyBackend", "boolean"),
    ("limitBytes", "integer"),
    ("previous", "boolean"),
    ("sinceSeconds", "integer"),
    ("stream", "string"),
    ("tailLines", "integer"),
    ("timestamps", "boolean"),
];
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const ANSWER_TYPES: [&str; 1] = ["application/json"];

/// The paths of one group and version.
pub(super) fn of_group_version(group: &str, version: &str) -> Vec<Path> {
    resources::of_group_version(group, version)
        .flat_map(of_resource)
        .collect()
}

/// `apps` is `Apps`, `rbac.authorization.k8s.io` is `RbacAuthorization`: operations are named after it.
fn camel_case(group: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    group.split('.').map(capitalised).collect()
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

struct Builder {
    resource: &'static ApiResource,
    group_version: String,
    tag: String,
    /// `NamespacedPod` or `Node`.
    subject: String,
}

fn of_resource(resource: &'static ApiResource) -> Vec<Path> {
    let group = camel_case(resource.group);
    let mut tag = group.clone();
    tag[..1].make_ascii_lowercase();
    let scope = if resource.namespaced { "Namespaced" } else { "" };
    let builder = Builder {
        resource,
        group_version: format!("{group}{}", capitalised(resource.version)),
        tag: format!("{tag}_{}", resource.version),
        subject: format!("{scope}{}", resource.kind),
    };
    let base = format!("/{}", super::api_path(resource.group, resource.version));
    let collection = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{base}/{}", resource.plural)
    };
    let mut paths = vec![
        builder.collection(collection.clone()),
        builder.item(format!("{collection}/{{name}}")),
    ];
    if resource.namespaced && resource.has_verb(Verb::List) {
        paths.push(builder.everywhere(format!("{base}/{}", resource.plural)));
    }
    for subresource in resource.subresources {
        let path = format!("{collection}/{{name}}/{}", subresource.name);
        paths.push(builder.subresource(path, subresource));
    }
    paths.retain(|path| !path.operations.is_empty());
    paths
}

impl Builder {
    fn operation(&self, verb: Verb, gvk: GroupVersionKind) -> Operation {
        let (group_version, subject) = (&self.group_version, &self.subject);
        let ty = schema::lookup(&gvk).and_then(|ty| ty.name());
        let status = schema::by_name(&format!("{META}Status")).and_then(|ty| ty.name());
        let list = GroupVersionKind::new(
            gvk.group.clone(),
            gvk.version.clone(),
            format!("{}List", gvk.kind),
        );
        let (method, action, id, body, answer, query) = match verb {
            Verb::List | Verb::Watch => {
                let list = schema::lookup(&list).and_then(|ty| ty.name());
                (
                    "get",
                    "list",
                    format!("list{group_version}{subject}"),
                    Body::None,
                    list,
                    LIST,
                )
            }
            Verb::Create => {
                let id = format!("create{group_version}{subject}");
                ("post", "post", id, Body::Object(ty), ty, WRITE)
            }
            Verb::DeleteCollection => {
                let id = format!("delete{group_version}Collection{subject}");
                (
                    "delete",
                    "deletecollection",
                    id,
                    Body::Options,
                    status,
                    DELETE_COLLECTION,
                )
            }
            Verb::Get => (
                "get",
                "get",
                format!("read{group_version}{subject}"),
                Body::None,
                ty,
                &[][..],
            ),
            Verb::Update => {
                let id = format!("replace{group_version}{subject}");
                ("put", "put", id, Body::Object(ty), ty, WRITE)
            }
            Verb::Patch => (
                "patch",
                "patch",
                format!("patch{group_version}{subject}"),
                Body::Patch,
                ty,
                PATCH,
            ),
            Verb::Delete => {
                let id = format!("delete{group_version}{subject}");
                ("delete", "delete", id, Body::Options, status, DELETE)
            }
        };
        Operation {
            method,
            action,
            id,
            tag: self.tag.clone(),
            gvk,
            body,
            answer,
            query,
        }
    }

    fn path(&self, path: String, verbs: &[Verb]) -> Path {
        let served = verbs.iter().filter(|verb| self.resource.has_verb(**verb));
        Path {
            path,
            operations: served
                .map(|verb| self.operation(*verb, self.resource.gvk()))
                .collect(),
        }
    }

    fn collection(&self, path: String) -> Path {
        self.path(path, &[Verb::DeleteCollection, Verb::List, Verb::Create])
    }

    fn item(&self, path: String) -> Path {
        self.path(path, &[Verb::Delete, Verb::Get, Verb::Patch, Verb::Update])
    }

    /// A list across namespaces.
    fn everywhere(&self, path: String) -> Path {
        let mut path = self.path(path, &[Verb::List]);
        for operation in &mut path.operations {
            operation.id = format!("list{}{}ForAllNamespaces", self.group_version, self.resource.kind);
        }
        path
    }

    fn subresource(&self, path: String, subresource: &'static Subresource) -> Path {
        let gvk = self.resource.subresource_gvk(subresource);
        let connects = gvk.kind.ends_with("Options");
        let name = capitalised(subresource.name);
        let operations = subresource.verbs.iter().map(|verb| {
            let mut operation = self.operation(*verb, gvk.clone());
            operation.id.push_str(&name);
            if connects {
                let method = capitalised(operation.method);
                operation.action = "connect";
                operation.id = format!("connect{}{method}{}{name}", self.group_version, self.subject);
                operation.body = Body::None;
                operation.answer = None;
                operation.query = &[];
            } else if subresource.name == "log" {
                operation.answer = None;
                operation.query = LOG;
            }
            operation
        });
        Path {
            path,
            operations: operations.collect(),
        }
    }
}

impl Path {
    /// Adds the names of the types that its operations speak of.
    pub(super) fn type_names(&self, names: &mut BTreeSet<&'static str>) {
        for operation in &self.operations {
            names.extend(operation.answer);
            names.extend(operation.body.type_name());
        }
    }

    /// The path item.
    pub(super) fn item(&self, form: Form) -> Value {
        let mut item = Map::new();
        for operation in &self.operations {
            item.insert(operation.method.to_owned(), operation.document(form));
        }
        let in_path = ["name", "namespace"]
            .into_iter()
            .filter(|name| self.path.contains(&format!("{{{name}}}")));
        let mut parameters: Vec<Value> = in_path
            .map(|name| parameter("path", name, "string", form))
            .collect();
        parameters.push(parameter("query", "pretty", "string", form));
        item.insert("parameters".to_owned(), Value::Array(parameters));
        Value::Object(item)
    }
}

fn parameter(place: &str, name: &str, ty: &str, form: Form) -> Value {
    let mut parameter = json!({"in": place, "name": name});
    let schema = json!({"type": ty, "uniqueItems": true});
    match form {
        Form::V3 => parameter["schema"] = schema,
        Form::V2 => {
            parameter["type"] = json!(ty);
            parameter["uniqueItems"] = json!(true);
        }
    }
    if place == "path" {
        parameter["required"] = json!(true);
    }
    parameter
}

impl Body {
    fn type_name(&self) -> Option<&'static str> {
        let meta = |name: &str| schema::by_name(&format!("{META}{name}")).and_then(|ty| ty.name());
        match self {
            Self::None => None,
            Self::Object(ty) => *ty,
            Self::Options => meta("DeleteOptions"),
            Self::Patch => meta("Patch"),
        }
    }

    fn required(&self) -> bool {
        matches!(self, Self::Object(_) | Self::Patch)
    }
}

impl Operation {
    fn document(&self, form: Form) -> Value {
        let mut document = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {
                "group": self.gvk.group, "version": self.gvk.version, "kind": self.gvk.kind,
            },
        });
        let mut parameters: Vec<Value> = self
            .query
            .iter()
            .map(|(name, ty)| parameter("query", name, ty, form))
            .collect();
        let body_types: &[&str] = match self.body {
            Body::Patch => &PATCH_TYPES,
            _ => &["*/*"],
        };
        if let Some(ty) = self.body.type_name() {
            let schema = reference(ty, form);
            match form {
                Form::V3 => {
                    document["requestBody"] = json!({"content": content(body_types, &schema)});
                    if self.body.required() {
                        document["requestBody"]["required"] = json!(true);
                    }
                }
                Form::V2 => {
                    let mut body = json!({"in": "body", "name": "body", "schema": schema});
                    if self.body.required() {
                        body["required"] = json!(true);
                    }
                    parameters.push(body);
                }
            }
        }
        if form == Form::V2 {
            document["consumes"] = json!(body_types);
            document["produces"] = json!(ANSWER_TYPES);
            document["schemes"] = json!(["https"]);
        }
        if !parameters.is_empty() {
            document["parameters"] = Value::Array(parameters);
        }
        document["responses"] = self.responses(form);
        document
    }

    fn responses(&self, form: Form) -> Value {
        let schema = self
            .answer
            .map_or_else(|| json!({"type": "string"}), |ty| reference(ty, form));
        let codes: &[(&str, &str)] = match self.action {
            "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            "put" | "patch" => &[("200", "OK"), ("201", "Created")],
            "delete" => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        };
        let mut responses = Map::new();
        for (code, text) in codes {
            let mut response = json!({"description": text});
            match form {
                Form::V3 => response["content"] = content(&ANSWER_TYPES, &schema),
                Form::V2 => response["schema"] = schema.clone(),
            }
            responses.insert((*code).to_owned(), response);
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        Value::Object(responses)
    }
}

fn content(media_types: &[&str], schema: &Value) -> Value {
    let entries = media_types
        .iter()
        .map(|ty| ((*ty).to_owned(), json!({"schema": schema})));
    Value::Object(entries.collect())
}
