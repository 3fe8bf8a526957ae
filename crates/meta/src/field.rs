//! Field paths and field errors: bad user input as data.
//! Upstream: `k8s.io/apimachinery/pkg/util/validation/field`.

use serde_json::Value;
use std::fmt;

/// Where in an object: `spec.ports[0].nodePort`, `metadata.labels[a/b]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldPath(String);

impl FieldPath {
    /// A path of one or more dotted names; empty is the object itself.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The named child.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            Self(name.to_owned())
        } else {
            Self(format!("{}.{name}", self.0))
        }
    }

    /// The element at `index` of a list.
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The entry of a map with this key.
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field. The wire name (`FieldValueInvalid`) is the cause's `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorType {
    /// A referenced value does not exist.
    NotFound,
    /// A required value is absent.
    Required,
    /// A value that must be unique is repeated.
    Duplicate,
    /// Malformed or out of range.
    Invalid,
    /// Not one of the allowed values.
    NotSupported,
    /// Allowed by form, not in this place.
    Forbidden,
    /// A string is too long.
    TooLong,
    /// A list has too many items.
    TooMany,
    /// Wrong JSON type.
    TypeInvalid,
    /// Our own failure.
    Internal,
}

impl FieldErrorType {
    /// The cause's `reason` on the wire.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One thing wrong with one field. Constructors fill `body` with upstream's wording.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// The class of the error.
    pub kind: FieldErrorType,
    /// The field.
    pub field: FieldPath,
    /// The text after the field: `Invalid value: 31: provided port is not …`.
    pub body: String,
}

impl FieldError {
    fn with_value(kind: FieldErrorType, field: &FieldPath, value: &Value, detail: &str) -> Self {
        let mut body = format!("{}: {}", kind.text(), render(value));
        if !detail.is_empty() {
            body.push_str(": ");
            body.push_str(detail);
        }
        Self {
            kind,
            field: field.clone(),
            body,
        }
    }

    fn bare(kind: FieldErrorType, field: &FieldPath, detail: &str) -> Self {
        let body = if detail.is_empty() {
            kind.text().to_owned()
        } else {
            format!("{}: {detail}", kind.text())
        };
        Self {
            kind,
            field: field.clone(),
            body,
        }
    }

    /// `Invalid value: VALUE: DETAIL`.
    pub fn invalid(field: &FieldPath, value: impl Into<Value>, detail: &str) -> Self {
        Self::with_value(FieldErrorType::Invalid, field, &value.into(), detail)
    }

    /// `Required value: DETAIL`.
    pub fn required(field: &FieldPath, detail: &str) -> Self {
        Self::bare(FieldErrorType::Required, field, detail)
    }

    /// `Forbidden: DETAIL`.
    pub fn forbidden(field: &FieldPath, detail: &str) -> Self {
        Self::bare(FieldErrorType::Forbidden, field, detail)
    }

    /// `Duplicate value: VALUE`.
    pub fn duplicate(field: &FieldPath, value: impl Into<Value>) -> Self {
        Self::with_value(FieldErrorType::Duplicate, field, &value.into(), "")
    }

    /// `Not found: VALUE`.
    pub fn not_found(field: &FieldPath, value: impl Into<Value>) -> Self {
        Self::with_value(FieldErrorType::NotFound, field, &value.into(), "")
    }

    /// `Unsupported value: VALUE: supported values: "A", "B"`.
    pub fn not_supported(field: &FieldPath, value: impl Into<Value>, allowed: &[&str]) -> Self {
        let mut sorted: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
        sorted.sort();
        let detail = format!("supported values: {}", sorted.join(", "));
        Self::with_value(FieldErrorType::NotSupported, field, &value.into(), &detail)
    }

    /// `Too long: may not be more than MAX bytes`.
    pub fn too_long(field: &FieldPath, max: usize) -> Self {
        Self::bare(
            FieldErrorType::TooLong,
            field,
            &format!("may not be more than {max} bytes"),
        )
    }

    /// `Too many: ACTUAL: must have at most MAX items`.
    pub fn too_many(field: &FieldPath, actual: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} items");
        Self::with_value(FieldErrorType::TooMany, field, &Value::from(actual), &detail)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body)
    }
}

/// Upstream prints strings quoted, scalars bare, and everything else as JSON.
fn render(value: &Value) -> String {
    match value {
        Value::String(s) => format!("{s:?}"),
        Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}
