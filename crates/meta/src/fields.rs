//! Field selectors: `metadata.name=x,status.phase!=Running`. Upstream: `k8s.io/apimachinery/pkg/fields`.

use std::fmt;

/// One term: a field that has, or has not, a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// The selectable field, such as `spec.nodeName`.
    pub field: String,
    /// The value, unescaped.
    pub value: String,
    /// Whether the value must differ.
    pub negated: bool,
}

/// All of these terms; without any it matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// Why a field selector was not understood; the text is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// A term without an operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The whole selector.
        selector: String,
        /// The term.
        term: String,
    },
    /// A backslash before something that needs none.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// A `,` or `=` in a value that lacks its backslash. Upstream prints the code point.
    #[error("invalid field selector: unescaped character in value: {}", u32::from(*.0))]
    Unescaped(char),
}

impl FieldSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Parses the query parameter `fieldSelector`.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let (field, negated, value) = split_term(part).ok_or_else(|| FieldSelectorError::Term {
                selector: text.to_owned(),
                term: part.to_owned(),
            })?;
            terms.push(FieldTerm {
                field: field.to_owned(),
                value: unescape(value)?,
                negated,
            });
        }
        Ok(Self { terms })
    }

    /// The terms, ordered as text.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// Whether this selects everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The one value a field must have, if the selector fixes it: what turns a LIST into a lookup.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|t| !t.negated && t.field == field)
            .map(|t| t.value.as_str())
    }

    /// Whether every term holds. `field` answers the value of a selectable field; an absent one is empty.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms
            .iter()
            .all(|t| (field(&t.field).unwrap_or_default() == t.value) != t.negated)
    }

    /// The fields that `supported` does not name: a request for them is refused.
    pub fn unsupported<'a>(&'a self, supported: &[&str]) -> Option<&'a str> {
        self.terms
            .iter()
            .map(|t| t.field.as_str())
            .find(|f| !supported.contains(f))
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let operator = if term.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

/// Puts a backslash before `\`, `,` and `=`.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Splits at commas that have no backslash before them.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// Field, whether negated, and the raw value; the first operator splits.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    term.char_indices().find_map(|(i, _)| {
        let (field, rest) = term.split_at(i);
        [("!=", true), ("==", false), ("=", false)]
            .into_iter()
            .find_map(|(operator, negated)| Some((field, negated, rest.strip_prefix(operator)?)))
    })
}

fn unescape(raw: &str) -> Result<String, FieldSelectorError> {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(FieldSelectorError::Escape(format!("\\{c}"))),
                None => return Err(FieldSelectorError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped(c)),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &str) -> Option<&'static str> {
        match name {
            "metadata.name" => Some("web"),
            "status.phase" => Some("Running"),
            _ => None,
        }
    }

    #[test]
    fn matches_and_prints() {
        for (text, wanted) in [
            ("", true),
            ("metadata.name=web", true),
            ("metadata.name==web,status.phase!=Pending", true),
            ("status.phase!=Running", false),
            ("spec.nodeName=", true),
            ("spec.nodeName!=", false),
        ] {
            let selector = FieldSelector::parse(text).expect(text);
            assert_eq!(selector.matches(fields), wanted, "{text}");
            assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
        }
        let selector = FieldSelector::parse("b=2,a=1").expect("valid");
        assert_eq!(selector.to_string(), "a=1,b=2");
        assert_eq!(selector.exact("a"), Some("1"));
        assert_eq!(selector.unsupported(&["a"]), Some("b"));
    }

    #[test]
    fn escapes() {
        let selector = FieldSelector::parse(r"k=a\,b\=c\\").expect("valid");
        assert_eq!(selector.exact("k"), Some(r"a,b=c\"));
        assert_eq!(selector.to_string(), r"k=a\,b\=c\\");
        let message = |text: &str| FieldSelector::parse(text).expect_err(text).to_string();
        assert_eq!(message("a"), "invalid selector: 'a'; can't understand 'a'");
        assert_eq!(
            message(r"a=\x"),
            r"invalid field selector: invalid escape sequence: \x"
        );
        assert_eq!(
            message(r"a=\"),
            r"invalid field selector: invalid escape sequence: \"
        );
        assert_eq!(
            message("a=b=c"),
            "invalid field selector: unescaped character in value: 61"
        );
    }
}
