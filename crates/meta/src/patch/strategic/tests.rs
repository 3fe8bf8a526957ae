use super::*;
use crate::patch::schema::{Kind, ListKind, ScalarKind};
use crate::patch::testing::any_json_without_null;
use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as AnyStrategy;
use serde_json::json;

/// A type with a field of each sort, any of them again below it, as upstream's tests have it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Item {
    Struct,
    Text,
    Texts,
    MergingList,
    RetainKeysMergingList,
    PlainList,
    MergingScalars,
    PlainScalars,
    Replacing,
    RetainKeysMap,
}

impl Schema for Item {
    fn child(self, key: &str) -> Option<Self> {
        match self {
            Item::Struct | Item::RetainKeysMap => Some(match key {
                "name" | "value" | "other" => Item::Text,
                "item" => Item::Struct,
                "simpleMap" => Item::Texts,
                "mergingList" => Item::MergingList,
                "retainKeysMergingList" => Item::RetainKeysMergingList,
                "nonMergingList" => Item::PlainList,
                "mergingIntList" => Item::MergingScalars,
                "nonMergingIntList" => Item::PlainScalars,
                "replacingItem" => Item::Replacing,
                "retainKeysMap" => Item::RetainKeysMap,
                _ => return None,
            }),
            Item::Texts => Some(Item::Text),
            _ => None,
        }
    }
    fn element(self) -> Option<Self> {
        match self {
            Item::MergingList | Item::PlainList | Item::RetainKeysMergingList => Some(Item::Struct),
            Item::MergingScalars | Item::PlainScalars => Some(Item::Text),
            _ => None,
        }
    }
    fn kind(self) -> Kind {
        match self {
            Item::Struct | Item::RetainKeysMap => Kind::Struct,
            Item::Text => Kind::Scalar(ScalarKind::Untyped),
            Item::Texts => Kind::Map,
            Item::Replacing => Kind::Any,
            _ => Kind::List,
        }
    }
    fn is_atomic(self) -> bool {
        self == Item::Replacing
    }
    fn list_kind(self) -> ListKind<'static> {
        ListKind::Atomic
    }
    fn strategy(self) -> Strategy<'static> {
        let merge_key = Some("name");
        match self {
            Item::MergingList => Strategy {
                merge: true,
                merge_key,
                ..Strategy::default()
            },
            Item::RetainKeysMergingList => Strategy {
                merge: true,
                retain_keys: true,
                merge_key,
                ..Strategy::default()
            },
            Item::MergingScalars => Strategy {
                merge: true,
                ..Strategy::default()
            },
            Item::Replacing => Strategy {
                replace: true,
                ..Strategy::default()
            },
            Item::RetainKeysMap => Strategy {
                retain_keys: true,
                ..Strategy::default()
            },
            _ => Strategy::default(),
        }
    }
    fn type_name(self) -> &'static str {
        "MergeItem"
    }
    fn zero(self) -> Option<Value> {
        None
    }
    fn default(self) -> Option<Value> {
        None
    }
}

fn patched(original: &Value, patch: &Value) -> std::result::Result<Value, String> {
    let mut result = original.clone();
    apply(Item::Struct, &mut result, patch).map_err(|e| e.to_string())?;
    Ok(result)
}

#[track_caller]
fn check(original: Value, patch: Value, wanted: Value) {
    assert_eq!(patched(&original, &patch), Ok(wanted), "{original} with {patch}");
}

#[test]
fn maps() {
    check(
        json!({"name": "a", "value": "b"}),
        json!({"value": "c"}),
        json!({"name": "a", "value": "c"}),
    );
    check(
        json!({"name": "a", "value": "b"}),
        json!({"value": null}),
        json!({"name": "a"}),
    );
    check(json!({"name": "a"}), json!({"value": null}), json!({"name": "a"}));
    check(
        json!({"simpleMap": {"a": "1", "b": "2"}}),
        json!({"simpleMap": {"a": null, "c": "3"}}),
        json!({"simpleMap": {"b": "2", "c": "3"}}),
    );
    check(
        json!({"simpleMap": {"a": "1"}}),
        json!({"simpleMap": {"$patch": "delete"}}),
        json!({"simpleMap": {}}),
    );
    check(
        json!({"name": "a", "value": "b"}),
        json!({"other": "c", "$patch": "replace"}),
        json!({"other": "c"}),
    );
    // What is added brings neither nulls nor directives.
    check(
        json!({}),
        json!({"item": {"name": "a", "value": null, "item": {"$patch": "delete"}}}),
        json!({"item": {"name": "a"}}),
    );
    check(
        json!({"name": "a"}),
        json!({"item": {"$patch": "delete"}}),
        json!({"name": "a"}),
    );
    check(
        json!({"replacingItem": {"a": 1, "b": 2}}),
        json!({"replacingItem": {"c": 3}}),
        json!({"replacingItem": {"c": 3}}),
    );
}

#[test]
fn lists_of_objects() {
    let original = json!({"mergingList": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]});
    check(
        original.clone(),
        json!({"mergingList": [{"name": "b", "other": "x"}, {"name": "c"}]}),
        json!({"mergingList": [{"name": "a", "value": "1"}, {"name": "b", "value": "2", "other": "x"}, {"name": "c"}]}),
    );
    check(
        original.clone(),
        json!({"mergingList": [{"name": "a", "$patch": "delete"}]}),
        json!({"mergingList": [{"name": "b", "value": "2"}]}),
    );
    check(
        original.clone(),
        json!({"mergingList": [{"$patch": "replace"}, {"name": "z"}]}),
        json!({"mergingList": [{"name": "z"}]}),
    );
    check(
        original.clone(),
        json!({"mergingList": [{"$patch": "replace"}]}),
        json!({"mergingList": []}),
    );
    check(
        json!({"nonMergingList": [{"name": "a"}]}),
        json!({"nonMergingList": [{"name": "b"}]}),
        json!({"nonMergingList": [{"name": "b"}]}),
    );
    // Deletions meet every duplicate.
    check(
        json!({"mergingList": [{"name": "1"}, {"name": "1"}, {"name": "2"}]}),
        json!({"mergingList": [{"name": "1", "$patch": "delete"}]}),
        json!({"mergingList": [{"name": "2"}]}),
    );
    // Nested lists merge by their own keys.
    check(
        json!({"mergingList": [{"name": "a", "mergingList": [{"name": "x", "value": "1"}]}]}),
        json!({"mergingList": [{"name": "a", "mergingList": [{"name": "x", "value": "2"}, {"name": "y"}]}]}),
        json!({"mergingList": [{"name": "a", "mergingList": [{"name": "x", "value": "2"}, {"name": "y"}]}]}),
    );
}

#[test]
fn lists_of_scalars() {
    check(
        json!({"mergingIntList": [1, 2]}),
        json!({"mergingIntList": [2, 3]}),
        json!({"mergingIntList": [1, 2, 3]}),
    );
    check(
        json!({"nonMergingIntList": [1, 2]}),
        json!({"nonMergingIntList": [2, 3]}),
        json!({"nonMergingIntList": [2, 3]}),
    );
    check(
        json!({"mergingIntList": [1, 2, 3]}),
        json!({"$deleteFromPrimitiveList/mergingIntList": [1, 3]}),
        json!({"mergingIntList": [2]}),
    );
    check(
        json!({}),
        json!({"$deleteFromPrimitiveList/mergingIntList": [1]}),
        json!({}),
    );
    check(
        json!({"mergingIntList": [1, 2, 3]}),
        json!({"$setElementOrder/mergingIntList": [3, 2, 4], "mergingIntList": [4], "$deleteFromPrimitiveList/mergingIntList": [1]}),
        json!({"mergingIntList": [3, 2, 4]}),
    );
}

#[test]
fn element_order() {
    // An element that only the server has keeps its place as well as it can.
    check(
        json!({"mergingList": [{"name": "1"}, {"name": "server"}, {"name": "2"}, {"name": "3"}]}),
        json!({"$setElementOrder/mergingList": [{"name": "3"}, {"name": "2"}, {"name": "1"}]}),
        json!({"mergingList": [{"name": "server"}, {"name": "3"}, {"name": "2"}, {"name": "1"}]}),
    );
    check(
        json!({"mergingList": [{"name": "1"}, {"name": "server"}]}),
        json!({"$setElementOrder/mergingList": [{"name": "1"}, {"name": "2"}], "mergingList": [{"name": "2", "value": "x"}]}),
        json!({"mergingList": [{"name": "1"}, {"name": "2", "value": "x"}, {"name": "server"}]}),
    );
    // An element that takes the place of a deleted one.
    check(
        json!({"mergingList": [{"name": "1"}, {"name": "2"}, {"name": "server"}]}),
        json!({"$setElementOrder/mergingList": [{"name": "2"}, {"name": "3"}], "mergingList": [{"name": "3"}, {"name": "1", "$patch": "delete"}]}),
        json!({"mergingList": [{"name": "2"}, {"name": "server"}, {"name": "3"}]}),
    );
    // The order may name what is not there.
    check(
        json!({"mergingIntList": [1, 3]}),
        json!({"$setElementOrder/mergingIntList": [3, 2, 1]}),
        json!({"mergingIntList": [3, 1]}),
    );
    // A list that is new.
    check(
        json!({}),
        json!({"$setElementOrder/mergingList": [{"name": "1"}], "mergingList": [{"name": "1"}, {"name": "2", "$patch": "delete"}]}),
        json!({"mergingList": [{"name": "1"}]}),
    );
}

#[test]
fn retained_keys() {
    let original = json!({"retainKeysMap": {"name": "a", "value": "b"}});
    check(
        original.clone(),
        json!({"retainKeysMap": {"$retainKeys": ["name"], "name": "c"}}),
        json!({"retainKeysMap": {"name": "c"}}),
    );
    check(
        original.clone(),
        json!({"retainKeysMap": {"other": "c"}}),
        json!({"retainKeysMap": {"name": "a", "value": "b", "other": "c"}}),
    );
    check(
        original.clone(),
        json!({"retainKeysMap": {"$retainKeys": ["name", "other"], "other": "c", "value": null}}),
        json!({"retainKeysMap": {"name": "a", "other": "c"}}),
    );
    check(
        json!({"retainKeysMergingList": [{"name": "a", "value": "1"}]}),
        json!({"retainKeysMergingList": [{"name": "a", "$retainKeys": ["name", "other"], "other": "2"}]}),
        json!({"retainKeysMergingList": [{"name": "a", "other": "2"}]}),
    );
}

#[test]
fn upstreams_errors() {
    let list = json!({"mergingList": [{"name": "1"}, {"name": "3"}, {"name": "2"}]});
    for (original, patch, message) in [
        (
            json!({}),
            json!({"$patch": "smash"}),
            "unknown patch type: smash in map: map[]",
        ),
        (
            list.clone(),
            json!({"mergingList": [{"value": "x"}]}),
            "map: map[value:x] does not contain declared merge key: name",
        ),
        (
            list.clone(),
            json!({"mergingList": [{"$patch": "merge"}]}),
            "merging lists cannot yet be specified in the patch",
        ),
        (
            list.clone(),
            json!({"$setElementOrder/mergingList": [{"name": "1"}, {"name": "3"}], "mergingList": [{"name": "3"}, {"name": "1"}]}),
            "The order in patch list:\n[map[name:3] map[name:1]]\n doesn't match $setElementOrder list:\n[map[name:1] map[name:3]]\n",
        ),
        (
            list.clone(),
            json!({"$setElementOrder/mergingList": "x"}),
            "expected a []interface {}, but received a string",
        ),
        (
            list.clone(),
            json!({"mergingList": [1]}),
            "expected a map[string]interface {}, but received a int64",
        ),
        (
            json!({"x": {}}),
            json!({"x": {"a": 1}}),
            "unable to find api field in struct MergeItem for the json field \"x\"",
        ),
        (
            json!({"name": "a"}),
            json!({"$retainKeys": ["value"], "name": "b"}),
            "invalid patch format of retainKeys",
        ),
        (
            json!({}),
            json!({"$deleteFromPrimitiveList": [1]}),
            "invalid patch format of primitive list",
        ),
    ] {
        assert_eq!(patched(&original, &patch), Err(message.to_owned()));
    }
    assert_eq!(
        patched(&json!({}), &json!([])),
        Err("invalid JSON document".to_owned())
    );
}

fn items() -> impl AnyStrategy<Value = Vec<Value>> {
    let element = ("[abc]", prop::option::of("[xy]")).prop_map(|(name, value)| match value {
        Some(value) => json!({"name": name, "value": value}),
        None => json!({"name": name}),
    });
    prop::collection::vec(element, 0..4).prop_map(|list| {
        let mut unique: Vec<Value> = Vec::new();
        for item in list {
            if !unique.iter().any(|u| u["name"] == item["name"]) {
                unique.push(item);
            }
        }
        unique
    })
}

proptest! {
    #[test]
    fn merging_by_key_keeps_and_adds(old in items(), new in items()) {
        let result = patched(&json!({"mergingList": old}), &json!({"mergingList": new})).expect("merges");
        let list = result["mergingList"].as_array().expect("list").clone();
        for item in old.iter().chain(&new) {
            prop_assert_eq!(list.iter().filter(|v| v["name"] == item["name"]).count(), 1);
        }
        for item in &new {
            let merged = list.iter().find(|v| v["name"] == item["name"]).expect("there");
            prop_assert!(item["value"].is_null() || merged["value"] == item["value"]);
        }
        // Applying again changes nothing.
        prop_assert_eq!(patched(&result, &json!({"mergingList": new})), Ok(result));
    }

    #[test]
    fn order_directive_orders(old in items(), new in items()) {
        let order: Vec<Value> = new.iter().map(|v| json!({"name": v["name"]})).collect();
        let patch = json!({"mergingList": new, "$setElementOrder/mergingList": order});
        let result = patched(&json!({"mergingList": old}), &patch).expect("merges");
        let names: Vec<&Value> = result["mergingList"].as_array().expect("list").iter().map(|v| &v["name"])
            .filter(|name| new.iter().any(|n| n["name"] == **name)).collect();
        let wanted: Vec<&Value> = new.iter().map(|v| &v["name"]).collect();
        prop_assert_eq!(names, wanted);
    }

    #[test]
    fn never_panics(original in any_json_without_null(), patch in any_json_without_null()) {
        let _ = patched(&json!({"item": original}), &json!({"item": patch}));
    }
}
