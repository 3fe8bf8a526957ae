//! Types as OpenAPI schemas.

use super::operations::Form;
use crate::schema::{self, Scalar, Shape, TypeRef};
use coracle_meta::patch::{ListKind, Schema};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The types and all types that their fields refer to.
pub(super) fn closure(names: BTreeSet<&'static str>) -> BTreeSet<&'static str> {
    let mut all = BTreeSet::new();
    let mut open: Vec<&'static str> = names.into_iter().collect();
    while let Some(name) = open.pop() {
        if let (true, Some(ty)) = (all.insert(name), schema::by_name(name)) {
            open.extend(ty.fields().filter_map(|field| innermost(field.ty).name()));
        }
    }
    all
}

/// The type inside lists and maps.
fn innermost(ty: TypeRef) -> TypeRef {
    match ty.shape() {
        Shape::List(inner) | Shape::Map(inner) => innermost(inner),
        _ => ty,
    }
}

pub(super) fn reference(name: &str, form: Form) -> Value {
    let place = match form {
        Form::V2 => "#/definitions/",
        Form::V3 => "#/components/schemas/",
    };
    json!({"$ref": format!("{place}{}{name}", schema::PREFIX)})
}

/// A named type.
pub(super) fn document(ty: TypeRef, form: Form) -> Value {
    let mut document = match ty.shape() {
        Shape::Scalar(scalar) => named_scalar(scalar, form),
        _ => json!({"type": "object"}),
    };
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in ty.fields() {
        properties.insert(field.name.to_owned(), property(field.ty, form));
        if field.required {
            required.push(field.name);
        }
    }
    let kinds: Vec<Value> = ty
        .kinds()
        .map(|(group, version, kind)| json!({"group": group, "version": version, "kind": kind}))
        .collect();
    if !properties.is_empty() {
        document["properties"] = Value::Object(properties);
    }
    if !required.is_empty() {
        document["required"] = json!(required);
    }
    if !kinds.is_empty() {
        document["x-kubernetes-group-version-kind"] = Value::Array(kinds);
    }
    if ty.is_atomic() && ty.shape() == Shape::Object {
        document["x-kubernetes-map-type"] = json!("atomic");
    }
    document
}

fn named_scalar(scalar: Scalar, form: Form) -> Value {
    match (scalar, form) {
        (Scalar::Any, _) => json!({}),
        (Scalar::Opaque, _) => json!({"type": "object"}),
        (Scalar::Time | Scalar::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
        (Scalar::IntOrString, Form::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (Scalar::IntOrString, Form::V2) => json!({"type": "string", "format": "int-or-string"}),
        (Scalar::Quantity, Form::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        (scalar, _) => plain_scalar(scalar),
    }
}

fn plain_scalar(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Bool => json!({"type": "boolean"}),
        Scalar::Int32 => json!({"type": "integer", "format": "int32"}),
        Scalar::Int64 => json!({"type": "integer", "format": "int64"}),
        Scalar::Double => json!({"type": "number", "format": "double"}),
        Scalar::Bytes => json!({"type": "string", "format": "byte"}),
        _ => json!({"type": "string"}),
    }
}

/// The type of an element or of a map's value.
fn inner(ty: TypeRef, form: Form) -> Value {
    if let Some(name) = ty.name() {
        return reference(name, form);
    }
    match ty.shape() {
        Shape::List(element) => json!({"type": "array", "items": inner(element, form)}),
        Shape::Map(value) => json!({"type": "object", "additionalProperties": inner(value, form)}),
        Shape::Scalar(scalar) => plain_scalar(scalar),
        Shape::Object => json!({"type": "object"}),
    }
}

/// The type of a field, with what patches must know of it.
fn property(ty: TypeRef, form: Form) -> Value {
    let mut property = inner(ty, form);
    let mut more = Map::new();
    let mut extension = |name: &str, value: Value| more.insert(format!("x-kubernetes-{name}"), value);
    match ty.declared_list_kind() {
        Some(ListKind::Atomic) => drop(extension("list-type", json!("atomic"))),
        Some(ListKind::Set) => drop(extension("list-type", json!("set"))),
        Some(ListKind::Map(keys)) => {
            extension("list-type", json!("map"));
            extension("list-map-keys", json!(keys));
        }
        None => {}
    }
    if let Some(atomic) = ty.declared_atomic() {
        extension("map-type", json!(if atomic { "atomic" } else { "granular" }));
    }
    let strategy = ty.strategy();
    let named = [
        (strategy.merge, "merge"),
        (strategy.replace, "replace"),
        (strategy.retain_keys, "retainKeys"),
    ];
    let named: Vec<&str> = named
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect();
    if !named.is_empty() {
        extension("patch-strategy", json!(named.join(",")));
    }
    if let Some(key) = strategy.merge_key {
        extension("patch-merge-key", json!(key));
    }
    if let Some(default) = Schema::default(ty) {
        more.insert("default".to_owned(), default);
    }
    if more.is_empty() {
        return property;
    }
    // In version 3 nothing may stand beside a reference.
    if form == Form::V3 && property.get("$ref").is_some() {
        property = json!({"allOf": [property]});
    }
    if let Value::Object(object) = &mut property {
        object.extend(more);
    }
    property
}
