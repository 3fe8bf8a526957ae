//! The defaults that the schema itself declares, such as `protocol: TCP`. Defaults that depend on other fields
//! are code, beside each kind.

use super::{Shape, TypeRef};
use coracle_meta::patch::Schema;
use serde_json::Value;

/// Fills in absent fields that have a default, in every object that is there.
pub fn set_defaults(ty: TypeRef, value: &mut Value) {
    match (ty.shape(), value) {
        (Shape::Object, Value::Object(object)) => {
            for field in ty.fields() {
                if let Some(child) = object.get_mut(field.name) {
                    set_defaults(field.ty, child);
                } else if let Some(default) = field.ty.default() {
                    object.insert(field.name.to_owned(), default);
                }
            }
        }
        (Shape::Map(value_type), Value::Object(map)) => {
            map.values_mut().for_each(|value| set_defaults(value_type, value));
        }
        (Shape::List(element), Value::Array(list)) => {
            list.iter_mut().for_each(|value| set_defaults(element, value));
        }
        _ => {}
    }
}
