//! `$(VAR)` references in values, commands and arguments; `$$` is a dollar sign.
//! Upstream: `third_party/forked/golang/expansion`.

/// Replaces references by what `lookup` knows; unknown references stay as they are.
pub fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('(') {
            match after.find(')') {
                Some(end) => {
                    let name = &after[..end];
                    out.push_str(&lookup(name).unwrap_or_else(|| format!("$({name})")));
                    rest = &after[end + 1..];
                }
                None => {
                    out.push_str("$(");
                    rest = after;
                }
            }
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::expand;

    /// Cases of upstream's `expand_test.go`.
    #[test]
    fn upstream_cases() {
        let lookup = |name: &str| match name {
            "VAR_A" => Some("A".to_owned()),
            "VAR_B" => Some("B".to_owned()),
            "VAR_REF" => Some("$(VAR_A)".to_owned()),
            "VAR_EMPTY" => Some(String::new()),
            _ => None,
        };
        for (input, expected) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("$(VAR_A)-$(VAR_B)", "A-B"),
            ("f000-$$VAR_A", "f000-$VAR_A"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_B)", "$B"),
            ("$$$$$$(VAR_A)", "$$$(VAR_A)"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("foo$(VAR_EMPTY)bar", "foobar"),
            ("$(MISSING)", "$(MISSING)"),
            ("$VAR_A", "$VAR_A"),
            ("foo$", "foo$"),
            ("$(VAR_A", "$(VAR_A"),
            ("$(VAR_A)$(", "A$("),
            ("$$VAR_A$$", "$VAR_A$"),
            ("ü$€(x)", "ü$€(x)"),
            ("", ""),
        ] {
            assert_eq!(expand(input, lookup), expected, "{input}");
        }
    }
}
