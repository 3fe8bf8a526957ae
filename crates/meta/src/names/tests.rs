use super::*;

#[test]
fn dns_labels() {
    for good in ["a", "ab", "a1", "a-1", "a--1--2--b", "0", "1-a", &"a".repeat(63)] {
        assert!(is_dns1123_label(good).is_empty(), "{good}");
    }
    for bad in [
        "",
        "A",
        "aBc",
        "-",
        "a-",
        "-a",
        "_",
        "a_b",
        ".",
        "a.b",
        " ",
        "a b",
        &"a".repeat(64),
    ] {
        assert!(!is_dns1123_label(bad).is_empty(), "{bad}");
    }
    assert_eq!(is_dns1123_label("a.b"), ["must not contain dots"]);
    assert_eq!(
        is_dns1123_label("My_Name"),
        [
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
             and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        ]
    );
    assert_eq!(
        is_dns1123_label(&"a".repeat(64)),
        ["must be no more than 63 characters"]
    );
}

#[test]
fn dns_subdomains() {
    for good in ["a", "a.a", "1.2.3.4.5", "a-1.a", &"a".repeat(253)] {
        assert!(is_dns1123_subdomain(good).is_empty(), "{good}");
    }
    for bad in ["", ".", "a.", ".a", "a..b", "A.a", "a_b", "a@b", &"a".repeat(254)] {
        assert!(!is_dns1123_subdomain(bad).is_empty(), "{bad}");
    }
    assert_eq!(
        is_dns1123_subdomain("Bad"),
        [
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        ]
    );
    assert!(is_wildcard_dns1123_subdomain("*.bar.com").is_empty());
    for bad in ["*.*.bar.com", "*bar.com", "*", "foo.bar.com"] {
        assert!(!is_wildcard_dns1123_subdomain(bad).is_empty(), "{bad}");
    }
}

#[test]
fn dns1035() {
    assert!(is_dns1035_label("my-name").is_empty());
    for bad in ["0", "1a", "-a", "a-", "a.b", "A"] {
        assert_eq!(is_dns1035_label(bad).len(), 1, "{bad}");
    }
}

#[test]
fn label_keys_and_values() {
    for good in [
        "simple",
        "now-with-dashes",
        "1-num.2-num",
        "1234/5678",
        "1.2.3.4/5678",
        "Uppercase_Is_OK_123",
    ] {
        assert!(is_label_key(good).is_empty(), "{good}");
    }
    for bad in [
        "nospecialchars%^=@",
        "cantendwithadash-",
        "/",
        "a/",
        "/b",
        "only/one/slash",
        "Example.com/abc",
    ] {
        assert!(!is_label_key(bad).is_empty(), "{bad}");
    }
    assert_eq!(is_label_key("/b"), ["prefix part must be non-empty"],);
    assert_eq!(
        is_label_key(&"a".repeat(64)),
        ["name part must be no more than 63 bytes"]
    );
    assert!(is_label_value("").is_empty());
    assert!(is_label_value("1.2_3-4").is_empty());
    assert_eq!(
        is_label_value("-x"),
        [
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
             validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        ]
    );
}

#[test]
fn ports_and_keys() {
    for good in ["telnet", "re-mail-ck", "pop3", "a", "a-1", "1-a"] {
        assert!(is_port_name(good).is_empty(), "{good}");
    }
    for bad in [
        "longerthan15characters",
        "",
        "12345",
        "1-2-3-4",
        "-begin",
        "end-",
        "two--hyphens",
        "CAPS",
    ] {
        assert!(!is_port_name(bad).is_empty(), "{bad}");
    }
    assert_eq!(is_port_number(0), ["must be between 1 and 65535, inclusive"]);
    assert!(is_port_number(65535).is_empty());
    assert_eq!(is_config_map_key(".."), ["must not be '..'"]);
    assert_eq!(is_config_map_key("..a"), ["must not start with '..'"]);
    assert!(is_config_map_key("a.b_c-D").is_empty());
    assert!(is_percent("10%").is_empty());
    assert!(!is_percent("%").is_empty());
    assert!(is_env_var_name("a b.c").is_empty());
    assert_eq!(is_env_var_name("a=b").len(), 1);
}

#[test]
fn generated_names() {
    assert_eq!(generate("web-", 0), "web-bbbbb");
    let long = generate(&"x".repeat(80), u64::MAX);
    assert_eq!(long.len(), 63);
    assert!(is_dns1123_label(&long).is_empty());
    assert_eq!(mask_trailing_dash("web-"), "wea");
    assert_eq!(mask_trailing_dash("-"), "-");
    assert_eq!(mask_trailing_dash("web"), "web");
}
