use super::*;
use crate::patch::testing::any_json_without_null;
use proptest::prelude::*;
use serde_json::json;

fn patched(target: &Value, patch: &Value) -> Result<Value, String> {
    let mut result = target.clone();
    apply(&mut result, patch).map_err(|e| e.to_string())?;
    Ok(result)
}

#[test]
fn operations() {
    for (target, patch, wanted) in [
        (
            json!({}),
            json!([{"op": "add", "path": "/a", "value": 1}]),
            json!({"a": 1}),
        ),
        (
            json!({"a": [1, 3]}),
            json!([{"op": "add", "path": "/a/1", "value": 2}]),
            json!({"a": [1, 2, 3]}),
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/1", "value": 2}]),
            json!({"a": [1, 2]}),
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "add", "path": "/a/-", "value": 2}]),
            json!({"a": [1, 2]}),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "add", "path": "/a", "value": null}]),
            json!({"a": null}),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "add", "path": "", "value": []}]),
            json!([]),
        ),
        (
            json!({"a": 1, "b": 2}),
            json!([{"op": "remove", "path": "/a"}]),
            json!({"b": 2}),
        ),
        (
            json!({"a": [1, 2]}),
            json!([{"op": "remove", "path": "/a/0"}]),
            json!({"a": [2]}),
        ),
        (
            json!({"a": [1, 2]}),
            json!([{"op": "remove", "path": "/a/-1"}]),
            json!({"a": [1]}),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "replace", "path": "/a", "value": 2}]),
            json!({"a": 2}),
        ),
        (
            json!({"a": {"b": 1}}),
            json!([{"op": "move", "from": "/a/b", "path": "/c"}]),
            json!({"a": {}, "c": 1}),
        ),
        (
            json!({"a": [1, 2, 3]}),
            json!([{"op": "move", "from": "/a/0", "path": "/a/2"}]),
            json!({"a": [2, 3, 1]}),
        ),
        (
            json!({"a": 1}),
            json!([{"op": "copy", "from": "/a", "path": "/b"}]),
            json!({"a": 1, "b": 1}),
        ),
        (
            json!({"a": [1]}),
            json!([{"op": "test", "path": "/a", "value": [1]}]),
            json!({"a": [1]}),
        ),
        (
            json!({}),
            json!([{"op": "test", "path": "/a", "value": null}]),
            json!({}),
        ),
        (
            json!({"a/b": 1, "m~n": 2}),
            json!([{"op": "remove", "path": "/a~1b"}, {"op": "remove", "path": "/m~0n"}]),
            json!({}),
        ),
    ] {
        assert_eq!(patched(&target, &patch), Ok(wanted), "{target} with {patch}");
    }
}

#[test]
fn refusals() {
    let target = json!({"a": [1], "b": {"c": 1}});
    for (operation, message) in [
        (
            json!({"op": "add", "path": "/x/y", "value": 1}),
            r#"add operation does not apply: doc is missing path: "/x/y": missing value"#,
        ),
        (
            json!({"op": "remove", "path": "/x"}),
            r#"remove operation does not apply: doc is missing path: "/x": missing value"#,
        ),
        (
            json!({"op": "replace", "path": "/b/x", "value": 1}),
            r#"replace operation does not apply: doc is missing key: "/b/x": missing value"#,
        ),
        (
            json!({"op": "add", "path": "/a/3", "value": 1}),
            r#"add operation does not apply: "/a/3": invalid array index "3""#,
        ),
        (
            json!({"op": "remove", "path": "/a/1"}),
            r#"remove operation does not apply: "/a/1": invalid array index "1""#,
        ),
        (
            json!({"op": "remove", "path": "/a/00"}),
            r#"remove operation does not apply: "/a/00": invalid array index "00""#,
        ),
        (
            json!({"op": "test", "path": "/b/c", "value": 2}),
            "testing value /b/c failed: test failed",
        ),
        (
            json!({"op": "copy", "from": "/x", "path": "/y"}),
            r#"copy operation does not apply: doc is missing path: "/x": missing value"#,
        ),
    ] {
        assert_eq!(patched(&target, &json!([operation])), Err(message.to_owned()));
    }
    for patch in [
        json!({}),
        json!([{"op": "add"}]),
        json!([{"op": "fly", "path": "/a"}]),
        json!([{"op": "add", "path": "a"}]),
    ] {
        let message = patched(&target, &patch).expect_err("malformed");
        assert!(message.starts_with("json patch: "), "{message}");
    }
    let many = Value::Array(vec![
        json!({"op": "test", "path": "/b/c", "value": 1});
        MAX_OPERATIONS + 1
    ]);
    assert_eq!(
        patched(&target, &many),
        Err("The allowed maximum operations in a JSON patch is 10000, got 10001".to_owned())
    );
}

#[test]
fn documents_stay_readable() {
    // Each copy puts the document into itself.
    let nest = |times: usize| Value::Array(vec![json!({"op": "copy", "from": "", "path": "/b/c"}); times]);
    let target = json!({"a": [1], "b": {"c": 1}});
    let deep = patched(&target, &nest(60)).expect("not too deep");
    assert!(serde_json::from_str::<Value>(&deep.to_string()).is_ok());
    assert_eq!(
        patched(&target, &nest(80)),
        Err(JsonPatchError::TooDeep.to_string())
    );
    assert_eq!(
        patched(&target, &nest(10_000)),
        Err(JsonPatchError::TooDeep.to_string())
    );
    // Moving back and forth nests nothing.
    let moves = [
        json!({"op": "move", "from": "/a", "path": "/z"}),
        json!({"op": "move", "from": "/z", "path": "/a"}),
    ];
    let moves = Value::Array(moves.iter().cycle().take(10_000).cloned().collect());
    assert_eq!(patched(&target, &moves), Ok(target.clone()));
    // Copies are limited in size.
    let wide = json!({"a": ["x".repeat(1024)]});
    let copies = Value::Array(vec![json!({"op": "copy", "from": "/a/0", "path": "/a/-"}); 4000]);
    let message = patched(&wide, &copies).expect_err("too long");
    assert!(message.starts_with("Unable to complete the copy, "), "{message}");
}

proptest! {
    #[test]
    fn what_is_added_can_be_tested_and_removed(value in any_json_without_null(), new in any_json_without_null()) {
        let target = json!({"a": value});
        let patch = json!([
            {"op": "add", "path": "/b", "value": new},
            {"op": "test", "path": "/b", "value": new},
            {"op": "remove", "path": "/b"},
        ]);
        prop_assert_eq!(patched(&target, &patch), Ok(target));
    }

    #[test]
    fn paths_never_panic(path in "(/[-0-9ab~]{0,3}){0,3}", op in "(add|remove|replace|test)", target in any_json_without_null()) {
        let _ = patched(&target, &json!([{"op": op, "path": path, "value": 1}]));
    }
}
