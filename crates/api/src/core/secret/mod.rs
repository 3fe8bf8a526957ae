//! Secret. Upstream: `pkg/apis/core`, `pkg/registry/core/secret`.

mod validation;

use crate::access::{Read, Write};
use crate::strategy::{Facts, Kind, copy_field};
use crate::table::{AGE, NAME, TableSpec, age, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_meta::object::ObjectExt;
use serde_json::Value;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Type"), text("Data"), AGE],
        cells: |secret, now| {
            vec![
                secret.name().into(),
                secret.text("type").into(),
                secret.size("data").into(),
                age(secret, now),
            ]
        },
    },
    default,
    prepare_for_update: |secret, old| {
        if secret.text("type").is_empty() {
            copy_field(secret, old, "type");
        }
    },
    selectable_fields: |secret| vec![("type", secret.text("type").to_owned())],
    check: validation::check,
    check_update: Some(validation::check_update),
    ..Kind::new(Facts::NAMESPACED_DATA)
};

fn default(secret: &mut Value) {
    merge_string_data(secret);
    secret.fill_text("type", "Opaque");
}

/// `stringData` is for writing only: it ends up in `data`.
fn merge_string_data(secret: &mut Value) {
    let Some(texts) = secret.field("stringData").and_then(Value::as_object).cloned() else {
        return;
    };
    secret.drop_field("stringData");
    let data = secret.object("data");
    for (key, text) in texts {
        data.put(&key, STANDARD.encode(text.as_str().unwrap_or_default()));
    }
}
