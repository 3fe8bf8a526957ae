//! A value together with its path in the object: what validation walks over. The checks here are the ones that
//! fields of all kinds share. Upstream: the small validators of `pkg/apis/core/validation/validation.go`.

use crate::access::Read;
use crate::semantic::equal_field;
use crate::strategy::Errors;
use coracle_meta::{FieldError, FieldPath, names};
use serde_json::Value;
use std::net::IpAddr;
use std::ops::Deref;

/// Upstream's text for what an update may not change.
pub(crate) const IMMUTABLE: &str = "field is immutable";
/// Upstream's text for a number below zero.
pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";
/// Upstream's text for a number that is not above zero.
pub(crate) const NOT_POSITIVE: &str = "must be greater than zero";

/// A value, null if absent, and where it is.
#[derive(Clone)]
pub(crate) struct At<'a> {
    value: &'a Value,
    pub path: FieldPath,
}

impl Deref for At<'_> {
    type Target = Value;
    fn deref(&self) -> &Value {
        self.value
    }
}

impl<'a> At<'a> {
    /// A value at a path.
    pub fn new(value: &'a Value, path: FieldPath) -> Self {
        Self { value, path }
    }

    /// A field of an object's top level.
    pub fn top(object: &'a Value, key: &str) -> Self {
        Self::new(object.sub(key), FieldPath::new(key))
    }

    /// The value itself, with the lifetime of the object.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// The field, absent or not.
    pub fn child(&self, key: &str) -> Self {
        Self::new(self.value.sub(key), self.path.child(key))
    }

    /// The field, unless absent.
    pub fn present(&self, key: &str) -> Option<Self> {
        self.value.has(key).then(|| self.child(key))
    }

    /// The elements of the list in the field.
    pub fn each(&self, key: &str) -> impl Iterator<Item = Self> + use<'a> {
        let path = self.path.child(key);
        let items = self.value.list(key).iter().enumerate();
        items.map(move |(index, item)| Self::new(item, path.index(index)))
    }

    /// The entries of the map in the field, at `field[key]`.
    pub fn each_entry(&self, key: &str) -> impl Iterator<Item = (&'a str, Self)> + use<'a> {
        let path = self.path.child(key);
        let entries = self.value.entries(key);
        entries.map(move |(key, value)| (key.as_str(), Self::new(value, path.key(key))))
    }

    /// The value as text, or empty.
    pub fn as_text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// `Invalid value` about this value.
    pub fn invalid(&self, detail: &str) -> FieldError {
        FieldError::invalid(&self.path, self.value.clone(), detail)
    }

    /// `Forbidden` here.
    pub fn forbidden(&self, detail: &str) -> FieldError {
        FieldError::forbidden(&self.path, detail)
    }

    /// `Required value` here.
    pub fn required(&self, detail: &str) -> FieldError {
        FieldError::required(&self.path, detail)
    }

    /// `Duplicate value` about this value.
    pub fn duplicate(&self) -> FieldError {
        FieldError::duplicate(&self.path, self.value.clone())
    }

    /// `Unsupported value` about this value; absent is the empty text.
    pub fn not_supported(&self, allowed: &[&str]) -> FieldError {
        let value = match self.value {
            Value::Null => Value::from(""),
            other => other.clone(),
        };
        FieldError::not_supported(&self.path, value, allowed)
    }

    /// The field is a text that is not empty. Answers whether it is.
    pub fn require(&self, key: &str, errors: &mut Errors) -> bool {
        let missing = self.value.text(key).is_empty();
        if missing {
            errors.push(FieldError::required(&self.path.child(key), ""));
        }
        !missing
    }

    /// The text has the form that `reasons` knows.
    pub fn form(&self, reasons: impl Fn(&str) -> Vec<String>, errors: &mut Errors) {
        for reason in reasons(self.as_text()) {
            errors.push(FieldError::invalid(&self.path, self.as_text(), &reason));
        }
    }

    /// The field is required and its text has a form.
    pub fn require_form(&self, key: &str, reasons: impl Fn(&str) -> Vec<String>, errors: &mut Errors) {
        if self.require(key, errors) {
            self.child(key).form(reasons, errors);
        }
    }

    /// The field's text has a form, unless it is empty.
    pub fn optional_form(&self, key: &str, reasons: impl Fn(&str) -> Vec<String>, errors: &mut Errors) {
        if !self.value.text(key).is_empty() {
            self.child(key).form(reasons, errors);
        }
    }

    /// The text is one of a few.
    pub fn one_of(&self, allowed: &[&str], errors: &mut Errors) {
        if !allowed.contains(&self.as_text()) {
            errors.push(self.not_supported(allowed));
        }
    }

    /// The field is required and its text one of a few.
    pub fn require_one_of(&self, key: &str, allowed: &[&str], errors: &mut Errors) {
        if self.require(key, errors) {
            self.child(key).one_of(allowed, errors);
        }
    }

    /// The number in the field, if any, is not below zero.
    pub fn not_negative(&self, key: &str, errors: &mut Errors) {
        if self.value.int(key).is_some_and(|number| number < 0) {
            errors.push(self.child(key).invalid(NEGATIVE));
        }
    }

    /// The number in the field, 0 if absent, is above zero.
    pub fn positive(&self, key: &str, errors: &mut Errors) {
        let number = self.value.int(key).unwrap_or_default();
        if number <= 0 {
            errors.push(FieldError::invalid(&self.path.child(key), number, NOT_POSITIVE));
        }
    }

    /// None of the numbers, 0 if absent, is below zero.
    pub fn none_negative(&self, keys: &[&str], errors: &mut Errors) {
        for key in keys {
            self.not_negative(key, errors);
        }
    }

    /// The number in a field, 0 if absent, is not above that in another.
    pub fn not_above(&self, key: &str, other: &str, detail: &str, errors: &mut Errors) {
        let number = |key: &str| self.value.int(key).unwrap_or_default();
        if number(key) > number(other) {
            errors.push(self.child(key).invalid(detail));
        }
    }

    /// The field says what it said before.
    pub fn immutable(&self, key: &str, old: &Value, errors: &mut Errors) {
        if !equal_field(self.value, old, key) {
            errors.push(self.child(key).invalid(IMMUTABLE));
        }
    }

    /// The number in the field, if any, lies between two, both included.
    pub fn range(&self, key: &str, low: i64, high: i64, errors: &mut Errors) {
        if let Some(number) = self.value.int(key) {
            for reason in names::in_range(number, low, high) {
                errors.push(self.child(key).invalid(&reason));
            }
        }
    }

    /// The text is an IP address. Fields older than the strict form may be written uncanonically, yet not so
    /// that two programs read two addresses.
    pub fn ip(&self, errors: &mut Errors) {
        let text = self.as_text();
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
                errors.push(self.invalid("must not be an IPv4-mapped IPv6 address"));
            }
            Ok(_) => {}
            Err(_) if has_leading_zeros(text) => errors.push(self.invalid("must not have leading 0s")),
            Err(_) => {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.push(FieldError::invalid(&self.path, text, detail));
            }
        }
    }
}

/// Whether the text would be an IPv4 address but for zeros in front of its numbers.
fn has_leading_zeros(text: &str) -> bool {
    let trimmed: Vec<&str> = text
        .split('.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0",
            rest => rest,
        })
        .collect();
    trimmed.join(".").parse::<std::net::Ipv4Addr>().is_ok()
}

/// The names that `is_dns1123_subdomain` allows, for references to objects.
pub(crate) fn subdomain(name: &str) -> Vec<String> {
    names::is_dns1123_subdomain(name)
}

/// A DNS label.
pub(crate) fn label(name: &str) -> Vec<String> {
    names::is_dns1123_label(name)
}

/// What upstream calls a qualified name: a label key.
pub(crate) fn qualified_name(name: &str) -> Vec<String> {
    names::is_label_key(name)
}
