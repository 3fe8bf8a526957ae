//! ResourceList and ResourceRequirements: maps of quantities. Stored quantities are canonical texts, rounded
//! up to thousandths, so that equal amounts are equal texts. Upstream: `SetDefaults_ResourceList`.

use crate::access::{Read, Write};
use coracle_meta::Quantity;
use serde_json::Value;

/// The quantity in a field; a number means itself.
pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text.trim()).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// Whether the quantity is above zero.
pub(crate) fn is_positive(value: &Value) -> bool {
    quantity(value).is_some_and(|quantity| quantity.sign() > 0)
}

/// Makes a quantity its canonical text; what is none stays, for validation to complain of.
pub(crate) fn canonicalize(value: &mut Value) {
    if let Some(quantity) = quantity(value) {
        *value = Value::String(quantity.to_string());
    }
}

/// Makes the quantity in a field, if there is one, its canonical text.
pub(crate) fn canonicalize_field(holder: &mut Value, key: &str) {
    if let Some(value) = holder.existing(key) {
        canonicalize(value);
    }
}

/// Canonical quantities, rounded up to thousandths.
pub(crate) fn default_list(list: &mut Value) {
    let Some(list) = list.as_object_mut() else { return };
    for value in list.values_mut() {
        let Some(exact) = quantity(value) else { continue };
        let rounded = Quantity::from_milli(exact.milli_value(), exact.format());
        // Amounts beyond what thousandths can count are whole anyway.
        *value = if rounded > exact {
            rounded.to_string().into()
        } else {
            exact.to_string().into()
        };
    }
}

/// Canonical limits and requests.
pub(crate) fn default_requirements(resources: &mut Value) {
    for key in ["limits", "requests"] {
        if let Some(list) = resources.existing(key) {
            default_list(list);
        }
    }
}

/// The quantity of a name in a list as text, `0` if absent.
pub(crate) fn text_of(list: &Value, name: &str) -> String {
    list.field(name)
        .and_then(quantity)
        .map_or_else(|| "0".to_owned(), |quantity| quantity.to_string())
}
