use super::*;
use serde_json::json;

fn matches(selector: &str, labels: &Value) -> bool {
    Selector::parse(selector).expect(selector).matches(labels)
}

#[test]
fn upstreams_matches() {
    for (selector, labels, wanted) in [
        ("", json!({"x": "y"}), true),
        ("x=y", json!({"x": "y"}), true),
        ("x=y,z=w", json!({"x": "y", "z": "w"}), true),
        ("x!=y,z!=w", json!({"x": "z", "z": "a"}), true),
        ("notin=in", json!({"notin": "in"}), true),
        ("x", json!({"x": "z"}), true),
        ("!x", json!({"y": "z"}), true),
        ("x>1", json!({"x": "2"}), true),
        ("x<1", json!({"x": "0"}), true),
        ("x=z", json!({}), false),
        ("x=y", json!({"x": "z"}), false),
        ("x!=y,z!=w", json!({"x": "z", "z": "w"}), false),
        ("x", json!({"y": "z"}), false),
        ("!x", json!({"x": "z"}), false),
        ("x>1", json!({"x": "0"}), false),
        ("x>1", json!({"x": "two"}), false),
        ("x in (a,b)", json!({"x": "b"}), true),
        ("x in (a,,b)", json!({"x": ""}), true),
        ("x in ()", json!({"x": ""}), true),
        ("x notin (a)", json!({}), true),
        ("x notin (a)", json!({"x": "a"}), false),
    ] {
        assert_eq!(matches(selector, &labels), wanted, "{selector} on {labels}");
    }
}

#[test]
fn prints_canonically() {
    for (text, wanted) in [
        ("z=1,a==2 , b != 3", "a==2,b!=3,z=1"),
        ("x in (c,a , b),!y", "x in (a,b,c),!y"),
        ("x notin (,a)", "x notin (,a)"),
        ("n>1,m<2", "m<2,n>1"),
        ("a=", "a="),
    ] {
        let selector = Selector::parse(text).expect(text);
        assert_eq!(selector.to_string(), wanted);
        assert_eq!(Selector::parse(wanted), Ok(selector));
    }
}

#[test]
fn upstreams_errors() {
    for (text, wanted) in [
        ("x=a,", "found '', expected: identifier after ','"),
        (",x", "found ',', expected: !, identifier, or 'end of string'"),
        ("x==a==b", "found '==', expected: ',' or 'end of string'"),
        (
            "x y",
            "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt",
        ),
        ("!x=a", "found '=', expected: ',' or 'end of string'"),
        ("x in a", "unable to parse requirement: found 'a' expected: '('"),
        (
            "x in (a",
            "unable to parse requirement: found '', expected: ',' or ')'",
        ),
        (
            "x=(",
            "unable to parse requirement: found '(', expected: identifier",
        ),
        (
            "x>a",
            "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        ("!", "unable to parse requirement: found '', expected: identifier"),
    ] {
        assert_eq!(Selector::parse(text).expect_err(text).to_string(), wanted);
    }
    let bad_key = Selector::parse("-x=1").expect_err("invalid key").to_string();
    assert!(
        bad_key.starts_with(
            "unable to parse requirement: <nil>: Invalid value: \"-x\": name part must consist of"
        ),
        "{bad_key}"
    );
    let bad_value = Selector::parse("x=-y").expect_err("invalid value").to_string();
    assert!(
        bad_value.starts_with(
            "unable to parse requirement: values[0][x]: Invalid value: \"-y\": a valid label must be"
        ),
        "{bad_value}"
    );
}

#[test]
fn label_selectors() {
    let selector = Selector::from_label_selector(&json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    }))
    .expect("valid");
    assert_eq!(selector.to_string(), "app=web,!old,tier in (a,b)");
    assert!(selector.matches_object(&json!({"metadata": {"labels": {"app": "web", "tier": "b"}}})));
    assert!(!selector.matches_object(&json!({"metadata": {}})));

    assert!(
        Selector::from_label_selector(&json!({}))
            .expect("empty")
            .matches(&json!({"a": "b"}))
    );
    let nothing = Selector::from_label_selector(&Value::Null).expect("absent");
    assert!(!nothing.matches(&json!({})));
    assert!(!nothing.is_empty());

    let error = Selector::from_label_selector(&json!({"matchExpressions": [{"key": "a", "operator": "Gt"}]}));
    assert_eq!(
        error.expect_err("operator").to_string(),
        "\"Gt\" is not a valid label selector operator"
    );
    let error = Selector::from_label_selector(&json!({"matchExpressions": [{"key": "a", "operator": "In"}]}));
    assert_eq!(
        error.expect_err("no values").to_string(),
        "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
    );
}

#[test]
fn sets() {
    let labels: BTreeMap<String, String> = [("a".to_owned(), "1".to_owned())].into();
    assert!(Selector::from_set(&labels).matches(&labels));
    assert!(Selector::from_json_set(&json!({"a": "1"})).matches(&labels));
    assert!(!Selector::from_json_set(&Value::Null).matches(&labels));
}

#[test]
fn parser_never_panics() {
    use proptest::prelude::*;
    proptest!(|(text in "[a-z0-9 ,=!()<>ä]{0,24}")| {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }
    });
}
