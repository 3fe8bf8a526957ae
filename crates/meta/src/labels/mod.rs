//! Label selectors: the terms of `app=web,tier in (a,b),!legacy` and of a `LabelSelector`, and whether labels
//! satisfy them. Upstream: `k8s.io/apimachinery/pkg/labels`.

mod parse;
#[cfg(test)]
mod tests;

use crate::field::{FieldError, FieldPath};
use crate::names;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Something that has labels, so that selectors match stored JSON, typed objects and index rows alike.
pub trait Labels {
    /// The value of a label, if the label is there.
    fn get(&self, key: &str) -> Option<&str>;
}

impl Labels for Map<String, Value> {
    fn get(&self, key: &str) -> Option<&str> {
        Map::get(self, key).and_then(Value::as_str)
    }
}

/// The value of a `labels` field; anything but an object has no labels.
impl Labels for Value {
    fn get(&self, key: &str) -> Option<&str> {
        Value::get(self, key).and_then(Value::as_str)
    }
}

impl Labels for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<&str> {
        BTreeMap::get(self, key).map(String::as_str)
    }
}

impl<S: std::hash::BuildHasher> Labels for HashMap<String, String, S> {
    fn get(&self, key: &str) -> Option<&str> {
        HashMap::get(self, key).map(String::as_str)
    }
}

impl Labels for [(String, String)] {
    fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// Absent labels are no labels.
impl<L: Labels> Labels for Option<L> {
    fn get(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|labels| labels.get(key))
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn get(&self, key: &str) -> Option<&str> {
        (**self).get(key)
    }
}

/// How a requirement relates a key to its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The value is one of a set.
    In,
    /// The value is none of a set, or the label is absent.
    NotIn,
    /// `=`
    Equals,
    /// `==`, the same as `=` but printed as it was written.
    DoubleEquals,
    /// `!=`, also true of an absent label.
    NotEquals,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The value is an integer above the given one.
    GreaterThan,
    /// The value is an integer below the given one.
    LessThan,
}

/// One term of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// A checked term. The errors are upstream's, at `path`.
    pub fn new(
        key: &str,
        operator: Operator,
        values: Vec<String>,
        path: &FieldPath,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let reasons = names::is_label_key(key);
        if !reasons.is_empty() {
            errors.push(FieldError::invalid(&path.child("key"), key, &reasons.join("; ")));
        }
        let values_path = path.child("values");
        let count = values.len();
        let complaint = match operator {
            Operator::In | Operator::NotIn if count == 0 => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if count != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if count != 0 => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if count != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(complaint) = complaint {
            errors.push(FieldError::invalid(&values_path, values.clone(), complaint));
        }
        for (i, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err()
            {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(&values_path.index(i), value.as_str(), detail));
            }
            let reasons = names::is_label_value(value);
            if !reasons.is_empty() {
                let at = values_path.index(i).key(key);
                errors.push(FieldError::invalid(&at, value.as_str(), &reasons.join("; ")));
            }
        }
        if errors.is_empty() {
            Ok(Self {
                key: key.to_owned(),
                operator,
                values,
            })
        } else {
            Err(errors)
        }
    }

    /// The label this term is about.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How the key relates to the values.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values, in the order they were given.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether labels satisfy this term.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let value = labels.get(&self.key);
        let listed = |v: &str| self.values.iter().any(|wanted| wanted == v);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (value.and_then(|v| v.parse::<i64>().ok()), bound) {
                    (Some(v), Some(bound)) if self.operator == Operator::GreaterThan => v > bound,
                    (Some(v), Some(bound)) => v < bound,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&str> = self.values.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        let (key, values) = (&self.key, sorted.join(","));
        match self.operator {
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
        }
    }
}

/// Why a selector was not understood; the text is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

impl From<Vec<FieldError>> for SelectorError {
    fn from(errors: Vec<FieldError>) -> Self {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Self(match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        })
    }
}

/// All of these requirements; without any it matches everything. [`Selector::nothing`] matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object: what an absent `LabelSelector` means.
    pub fn nothing() -> Self {
        Self {
            nothing: true,
            ..Self::default()
        }
    }

    /// Parses the string form, as in the query parameter `labelSelector`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Ok(Self::from_requirements(parse::parse(text)?))
    }

    /// From checked requirements.
    pub fn from_requirements(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self {
            requirements,
            nothing: false,
        }
    }

    /// Demands exactly these labels, unchecked: the selector of a Service or a ReplicationController.
    /// An empty set matches everything.
    pub fn from_set<K: AsRef<str>, V: AsRef<str>>(labels: impl IntoIterator<Item = (K, V)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(k, v)| Requirement {
                key: k.as_ref().to_owned(),
                operator: Operator::Equals,
                values: vec![v.as_ref().to_owned()],
            })
            .collect();
        Self::from_requirements(requirements)
    }

    /// From a plain map of labels as JSON (`spec.selector` of a Service); not an object selects nothing.
    pub fn from_json_set(labels: &Value) -> Self {
        let Some(labels) = labels.as_object() else {
            return Self::nothing();
        };
        Self::from_set(labels.iter().map(|(k, v)| (k, v.as_str().unwrap_or_default())))
    }

    /// From the parts of a `LabelSelector`: `matchLabels`, and `(key, operator, values)` of `matchExpressions`.
    pub fn from_parts<'a>(
        match_labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        match_expressions: impl IntoIterator<Item = (&'a str, &'a str, Vec<String>)>,
    ) -> Result<Self, SelectorError> {
        let path = FieldPath::default();
        let mut requirements = Vec::new();
        for (key, value) in match_labels {
            requirements.push(Requirement::new(
                key,
                Operator::Equals,
                vec![value.to_owned()],
                &path,
            )?);
        }
        for (key, operator, values) in match_expressions {
            let operator = match operator {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            requirements.push(Requirement::new(key, operator, values, &path)?);
        }
        Ok(Self::from_requirements(requirements))
    }

    /// From a `LabelSelector` as JSON. `null` matches nothing, an empty object everything.
    pub fn from_label_selector(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let labels = selector.get("matchLabels").and_then(Value::as_object);
        let labels = labels
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default()));
        let text = |value: &'_ Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let expressions: Vec<(String, String, Vec<String>)> = selector
            .get("matchExpressions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|e| {
                let values = e.get("values").and_then(Value::as_array).into_iter().flatten();
                (
                    text(e, "key").unwrap_or_default(),
                    text(e, "operator").unwrap_or_default(),
                    values.filter_map(Value::as_str).map(str::to_owned).collect(),
                )
            })
            .collect();
        Self::from_parts(
            labels,
            expressions
                .iter()
                .map(|(k, o, v)| (k.as_str(), o.as_str(), v.clone())),
        )
    }

    /// The terms, ordered by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether this selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether labels satisfy every term.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether the labels of an object held as JSON satisfy every term.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(&object.get("metadata").and_then(|m| m.get("labels")))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&terms.join(","))
    }
}
