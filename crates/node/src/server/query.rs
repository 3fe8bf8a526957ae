//! Query strings.

use percent_encoding::percent_decode_str;

/// The pairs of a query, decoded.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query without its question mark.
    pub fn parse(text: &str) -> Self {
        let decode = |part: &str| {
            percent_decode_str(&part.replace('+', " "))
                .decode_utf8_lossy()
                .into_owned()
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value of a name, if it is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(n, value)| n == name && !value.is_empty());
        found.next().map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether any of the names is `1` or `true`: kubelets and API servers name the same flag differently.
    pub fn flag(&self, names: &[&str]) -> bool {
        names
            .iter()
            .any(|name| matches!(self.get(name), Some("1" | "true" | "True" | "TRUE" | "t" | "T")))
    }
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn values_are_decoded() {
        let query = Query::parse("command=sh&command=-c&command=echo+a%26b&input=1&tty=false&empty=");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo a&b"]);
        assert!(query.flag(&["stdin", "input"]) && !query.flag(&["tty"]));
        assert_eq!(query.get("empty"), None);
    }
}
