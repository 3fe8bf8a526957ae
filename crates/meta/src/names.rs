//! What names may look like: DNS labels and subdomains, label keys and values, port names and their kin.
//! Each `is_*` answers with upstream's reasons why a value is not one; no reason means that it is.
//! Upstream: `k8s.io/apimachinery/pkg/util/validation` and `pkg/api/validate/content`.

/// Longest DNS label and label value, in bytes.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain, in bytes.
pub const SUBDOMAIN_MAX: usize = 253;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1123_SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
     characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
     with an alphanumeric character";

/// `must be no more than MAX characters`.
fn too_many_characters(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// `must be no more than MAX bytes`: the wording of the newer half of upstream's validators.
fn too_many_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// Upstream's text about a value that does not match a regular expression.
pub fn regex_error(text: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{regex}')");
    }
    let quoted: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!(
        "{text} (e.g. {}regex used for validation is '{regex}')",
        quoted.join(" or ")
    )
}

/// `must be between LOW and HIGH, inclusive`.
pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `first` holds for the first byte, `last` for the last, `middle` for all.
fn shaped(s: &str, first: fn(u8) -> bool, middle: fn(u8) -> bool, last: fn(u8) -> bool) -> bool {
    match s.as_bytes() {
        [] => false,
        bytes @ [head, ..] => {
            first(*head) && bytes.iter().all(|&b| middle(b)) && bytes.last().copied().is_some_and(last)
        }
    }
}

fn dns1123_label_shape(s: &str) -> bool {
    shaped(s, lower_alnum, |b| lower_alnum(b) || b == b'-', lower_alnum)
}

fn dns1123_subdomain_shape(s: &str) -> bool {
    s.split('.').all(dns1123_label_shape)
}

fn label_key_shape(s: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_alphanumeric();
    shaped(
        s,
        alnum,
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
        alnum,
    )
}

/// A DNS label (RFC 1123): namespaces and most names that become a host name.
pub fn is_dns1123_label(value: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if value.len() > LABEL_MAX {
        reasons.push(too_many_characters(LABEL_MAX));
    }
    if !dns1123_label_shape(value) {
        if dns1123_subdomain_shape(value) {
            reasons.push("must not contain dots".to_owned());
        } else {
            let text = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                        and must start and end with an alphanumeric character";
            reasons.push(regex_error(text, DNS1123_LABEL, &["my-name", "123-abc"]));
        }
    }
    reasons
}

/// A DNS subdomain (RFC 1123): most object names.
pub fn is_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        reasons.push(too_many_characters(SUBDOMAIN_MAX));
    }
    if !dns1123_subdomain_shape(value) {
        reasons.push(regex_error(
            DNS1123_SUBDOMAIN_TEXT,
            DNS1123_SUBDOMAIN,
            &["example.com"],
        ));
    }
    reasons
}

/// A subdomain behind `*.`: the hosts of an Ingress.
pub fn is_wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        reasons.push(too_many_characters(SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(dns1123_subdomain_shape) {
        let text = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
                    must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric \
                    character";
        let regex = format!("\\*\\.{DNS1123_SUBDOMAIN}");
        reasons.push(regex_error(text, &regex, &["*.example.com"]));
    }
    reasons
}

/// A DNS label that starts with a letter (RFC 1035): names of Services.
pub fn is_dns1035_label(value: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if value.len() > LABEL_MAX {
        reasons.push(too_many_characters(LABEL_MAX));
    }
    let fits = shaped(
        value,
        |b| b.is_ascii_lowercase(),
        |b| lower_alnum(b) || b == b'-',
        lower_alnum,
    );
    if !fits {
        let text = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                    alphabetic character, and end with an alphanumeric character";
        reasons.push(regex_error(
            text,
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    reasons
}

/// A label key, also called a qualified name: `[SUBDOMAIN/]NAME`.
pub fn is_label_key(value: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    let examples = ["MyName", "my.name", "123-abc"];
    let mut parts = value.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                reasons.push("prefix part must be non-empty".to_owned());
            } else {
                if prefix.len() > SUBDOMAIN_MAX {
                    reasons.push(format!("prefix part {}", too_many_bytes(SUBDOMAIN_MAX)));
                }
                if !dns1123_subdomain_shape(prefix) {
                    let text = regex_error(DNS1123_SUBDOMAIN_TEXT, DNS1123_SUBDOMAIN, &["example.com"]);
                    reasons.push(format!("prefix part {text}"));
                }
            }
            name
        }
        _ => {
            let text = regex_error(LABEL_KEY_TEXT, LABEL_KEY, &examples);
            return vec![format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        reasons.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        reasons.push(format!("name part {}", too_many_bytes(LABEL_MAX)));
    }
    if !label_key_shape(name) {
        let text = regex_error(LABEL_KEY_TEXT, LABEL_KEY, &examples);
        reasons.push(format!("name part {text}"));
    }
    reasons
}

/// A label value: empty, or like the name part of a key.
pub fn is_label_value(value: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if value.len() > LABEL_MAX {
        reasons.push(too_many_bytes(LABEL_MAX));
    }
    if !value.is_empty() && !label_key_shape(value) {
        let text = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                    and must start and end with an alphanumeric character";
        let regex = format!("({LABEL_KEY})?");
        reasons.push(regex_error(text, &regex, &["MyValue", "my_value", "12345"]));
    }
    reasons
}

/// The name of a container port or a Service's target port: an IANA service name, lower case.
pub fn is_port_name(value: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if value.len() > 15 {
        reasons.push(too_many_characters(15));
    }
    if value.is_empty() || !value.bytes().all(|b| lower_alnum(b) || b == b'-') {
        reasons.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        reasons.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        reasons.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        reasons.push("must not begin or end with a hyphen".to_owned());
    }
    reasons
}

/// A port number that can be listened on.
pub fn is_port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

/// A number between `low` and `high`, both included.
pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) {
        Vec::new()
    } else {
        vec![range_error(low, high)]
    }
}

/// A percentage such as `25%`.
pub fn is_percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    let text = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_error(text, "[0-9]+%", &["1%", "93%"])]
}

/// The name of an HTTP header.
pub fn is_http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let text = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_error(text, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// The name of an environment variable, as relaxed since 1.34: printable ASCII without `=`.
pub fn is_env_var_name(value: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if value.is_empty() {
        reasons.push("environment variable name must be non-empty".to_owned());
    }
    if value.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        let text = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        reasons.push(text.to_owned());
    }
    reasons
}

/// A key of a ConfigMap or a Secret: also a file name, so neither `.` nor `..`.
pub fn is_config_map_key(value: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        reasons.push(too_many_characters(SUBDOMAIN_MAX));
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(fits) {
        let text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        let examples = ["key.name", "KEY_NAME", "key-name"];
        reasons.push(regex_error(text, "[-._a-zA-Z0-9]+", &examples));
    }
    match value {
        "." => reasons.push("must not be '.'".to_owned()),
        ".." => reasons.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => reasons.push("must not start with '..'".to_owned()),
        _ => {}
    }
    reasons
}

/// What a `generateName` is checked as: a trailing dash will be followed by something.
pub fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        // Upstream drops one character more than the dash; the length it then checks is one short.
        Some(rest) if !rest.is_empty() => {
            let mut chars = rest.chars();
            chars.next_back();
            format!("{}a", chars.as_str())
        }
        _ => prefix.to_owned(),
    }
}

/// The letters of generated suffixes: no vowels, so that no words come out.
pub const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// `generateName` with five letters behind it, made from `random`; at most 63 bytes.
pub fn generate(prefix: &str, random: u64) -> String {
    const SUFFIX: usize = 5;
    let mut end = prefix.len().min(LABEL_MAX - SUFFIX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    let mut rest = random;
    for _ in 0..SUFFIX {
        let index = usize::try_from(rest % 27).expect("a remainder of 27 fits");
        name.push(char::from(SUFFIX_ALPHABET[index]));
        rest /= 27;
    }
    name
}

#[cfg(test)]
mod tests;
