use super::*;
use crate::patch::schema::{Kind, ListKind, ScalarKind, Strategy as PatchStrategy};
use crate::patch::testing::any_json_without_null;
use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::{Just, Strategy};
use serde_json::json;

/// A type with a field of each sort.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Type {
    Object,
    Meta,
    Spec,
    Status,
    Number,
    Text,
    Protocol,
    Texts,
    Containers,
    Container,
    Ports,
    Port,
    Finalizers,
    Args,
    Selector,
    Raw,
}

impl Schema for Type {
    fn kind(self) -> Kind {
        match self {
            Type::Object
            | Type::Meta
            | Type::Spec
            | Type::Status
            | Type::Container
            | Type::Port
            | Type::Selector => Kind::Struct,
            Type::Texts => Kind::Map,
            Type::Containers | Type::Ports | Type::Finalizers | Type::Args => Kind::List,
            Type::Number => Kind::Scalar(ScalarKind::Numeric),
            Type::Text | Type::Protocol => Kind::Scalar(ScalarKind::String),
            Type::Raw => Kind::Any,
        }
    }
    fn child(self, key: &str) -> Option<Self> {
        Some(match (self, key) {
            (Type::Texts, _) => Type::Text,
            (Type::Object, "apiVersion" | "kind") => Type::Text,
            (Type::Object, "metadata") => Type::Meta,
            (Type::Object, "spec") => Type::Spec,
            (Type::Object, "status") => Type::Status,
            (Type::Status, "replicas") => Type::Number,
            (Type::Meta, "name" | "namespace" | "uid") => Type::Text,
            (Type::Meta, "labels" | "annotations") => Type::Texts,
            (Type::Meta, "finalizers") => Type::Finalizers,
            (Type::Meta, "managedFields") => Type::Raw,
            (Type::Spec, "replicas") => Type::Number,
            (Type::Spec, "containers") => Type::Containers,
            (Type::Spec, "args") => Type::Args,
            (Type::Spec, "selector") => Type::Selector,
            (Type::Spec, "raw") => Type::Raw,
            (Type::Spec, "inner") => Type::Spec,
            (Type::Container, "name" | "image") => Type::Text,
            (Type::Container, "env") => Type::Texts,
            (Type::Container, "ports") => Type::Ports,
            (Type::Port, "port") => Type::Number,
            (Type::Port, "protocol") => Type::Protocol,
            (Type::Port, "name") => Type::Text,
            (Type::Selector, "matchLabels") => Type::Texts,
            _ => return None,
        })
    }
    fn element(self) -> Option<Self> {
        match self {
            Type::Containers => Some(Type::Container),
            Type::Ports => Some(Type::Port),
            Type::Finalizers | Type::Args => Some(Type::Text),
            _ => None,
        }
    }
    fn is_atomic(self) -> bool {
        matches!(self, Type::Selector | Type::Raw)
    }
    fn list_kind(self) -> ListKind<'static> {
        match self {
            Type::Containers => ListKind::Map(&["name"]),
            Type::Ports => ListKind::Map(&["port", "protocol"]),
            Type::Finalizers => ListKind::Set,
            _ => ListKind::Atomic,
        }
    }
    fn strategy(self) -> PatchStrategy<'static> {
        PatchStrategy::default()
    }
    fn type_name(self) -> &'static str {
        ""
    }
    fn zero(self) -> Option<Value> {
        (self == Type::Status).then(|| json!({}))
    }
    fn default(self) -> Option<Value> {
        (self == Type::Protocol).then(|| json!("TCP"))
    }
}

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        subresource: "",
        api_version: "v1",
        ignored: &[&["status"]],
        now: "2024-01-01T00:00:00Z".parse().expect("valid"),
    }
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
}

fn applied(live: Option<&Value>, manager: &str, spec: Value) -> Result<Value, ApplyError> {
    apply(Type::Object, live, &object(spec), &writer(manager), false)
}

/// The fields that a manager owns.
fn fields(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().expect("managed");
    let entry = entries.iter().find(|e| e["manager"] == manager).expect(manager);
    entry["fieldsV1"].clone()
}

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let name = |e: &Value| {
        format!(
            "{} {}",
            e["manager"].as_str().unwrap_or_default(),
            e["operation"].as_str().unwrap_or_default()
        )
    };
    entries.iter().map(name).collect()
}

#[test]
fn an_applier_owns_what_it_applies() {
    let new = applied(
        None,
        "a",
        json!({
            "replicas": 1,
            "containers": [{"name": "c", "image": "i", "ports": [{"port": 80}]}],
            "args": ["x"],
            "selector": {"matchLabels": {"k": "v"}},
            "raw": {"deep": {"er": 1}},
        }),
    )
    .expect("applies");
    assert_eq!(
        fields(&new, "a"),
        json!({"f:spec": {
            "f:replicas": {},
            "f:containers": {"k:{\"name\":\"c\"}": {
                ".": {}, "f:name": {}, "f:image": {},
                "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
            }},
            "f:args": {}, "f:selector": {}, "f:raw": {},
        }})
    );
    assert_eq!(
        new["metadata"]["managedFields"][0],
        json!({"manager": "a", "operation": "Apply", "apiVersion": "v1", "time": "2024-01-01T00:00:00Z",
               "fieldsType": "FieldsV1", "fieldsV1": fields(&new, "a")})
    );
    assert_eq!(new["spec"]["replicas"], 1);
}

#[test]
fn what_is_applied_no_more_is_removed() {
    let live = applied(
        None,
        "a",
        json!({"replicas": 1, "containers": [{"name": "c", "image": "i"}, {"name": "d"}]}),
    )
    .expect("applies");
    let new = applied(Some(&live), "a", json!({"containers": [{"name": "c"}]})).expect("applies");
    assert_eq!(new["spec"], json!({"containers": [{"name": "c"}]}));
    let new = apply(
        Type::Object,
        Some(&new),
        &json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"}}),
        &writer("a"),
        false,
    )
    .expect("applies");
    assert_eq!(new.get("spec"), None);
    assert_eq!(managers(&new), Vec::<String>::new());
}

#[test]
fn what_another_owns_is_kept() {
    let live = applied(
        None,
        "a",
        json!({"replicas": 1, "containers": [{"name": "c", "image": "i"}]}),
    )
    .expect("applies");
    // The same value can be owned by two.
    let live = applied(
        Some(&live),
        "b",
        json!({"replicas": 1, "containers": [{"name": "c", "env": {"X": "1"}}]}),
    )
    .expect("no conflict");
    assert_eq!(managers(&live), ["a Apply", "b Apply"]);
    let bare = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"}});
    let new = apply(Type::Object, Some(&live), &bare, &writer("a"), false).expect("applies");
    assert_eq!(
        new["spec"],
        json!({"replicas": 1, "containers": [{"name": "c", "env": {"X": "1"}}]})
    );
    assert_eq!(managers(&new), ["b Apply"]);
}

#[test]
fn an_emptied_structure_that_another_owns_is_kept() {
    let live = applied(
        None,
        "a",
        json!({"inner": {"replicas": 1}, "containers": [{"name": "c", "env": {"X": "1"}}]}),
    )
    .expect("applies");
    let live = applied(
        Some(&live),
        "b",
        json!({"inner": {}, "containers": [{"name": "c", "env": {}}]}),
    )
    .expect("applies");
    let new = applied(Some(&live), "a", json!({"replicas": 1})).expect("applies");
    assert_eq!(
        new["spec"],
        json!({"inner": {}, "containers": [{"name": "c", "env": {}}], "replicas": 1})
    );
}

#[test]
fn a_field_owned_by_nobody_is_kept() {
    let mut live = applied(None, "a", json!({"replicas": 1, "inner": {"replicas": 1}})).expect("applies");
    // As the defaults of the server would.
    live["spec"]["inner"]["args"] = json!(["default"]);
    let new = applied(Some(&live), "a", json!({"inner": {"replicas": 2}})).expect("applies");
    assert_eq!(
        new["spec"],
        json!({"inner": {"replicas": 2, "args": ["default"]}})
    );
}

#[test]
fn conflicts() {
    let live = applied(None, "a", json!({"replicas": 1, "args": ["x"]})).expect("applies");
    let error = applied(Some(&live), "b", json!({"replicas": 2})).expect_err("conflict");
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas"
    );
    let status = error.status();
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let causes = status.details.expect("details").causes;
    assert_eq!(causes[0].reason, "FieldManagerConflict");
    assert_eq!(causes[0].message, "conflict with \"a\"");
    assert_eq!(causes[0].field, ".spec.replicas");

    let mut updated = live.clone();
    updated["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
    let scaler = Writer {
        subresource: "scale",
        ..writer("s")
    };
    track(Type::Object, Some(&live), &mut updated, &scaler);
    let error = applied(
        Some(&updated),
        "b",
        json!({"replicas": 2, "args": [], "containers": [{"name": "c", "image": "j"}]}),
    )
    .expect_err("conflict");
    assert_eq!(
        error.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .spec.args\n- .spec.replicas\nconflicts with \"s\" with subresource \
         \"scale\" using v1:\n- .spec.containers[name=\"c\"].image"
    );
    let forced = apply(
        Type::Object,
        Some(&updated),
        &object(json!({"replicas": 2})),
        &writer("b"),
        true,
    )
    .expect("forced");
    assert_eq!(fields(&forced, "a"), json!({"f:spec": {"f:args": {}}}));
    assert_eq!(fields(&forced, "b"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn writes_are_tracked() {
    let mut new = object(json!({"replicas": 1, "containers": [{"name": "c"}]}));
    new["status"] = json!({"replicas": 1});
    track(Type::Object, None, &mut new, &writer("kubectl"));
    assert_eq!(managers(&new), ["kubectl Update"]);
    assert_eq!(
        fields(&new, "kubectl"),
        json!({"f:spec": {".": {}, "f:replicas": {}, "f:containers": {".": {}, "k:{\"name\":\"c\"}": {".": {}, "f:name": {}}}}})
    );
    let live = new.clone();

    // Nothing changed, nothing to record; managed fields left out by the client stay.
    let mut same = live.clone();
    same["metadata"]
        .as_object_mut()
        .expect("object")
        .remove("managedFields");
    track(Type::Object, Some(&live), &mut same, &writer("other"));
    assert_eq!(same, live);

    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(3);
    track(Type::Object, Some(&live), &mut scaled, &writer("autoscaler"));
    assert_eq!(managers(&scaled), ["autoscaler Update", "kubectl Update"]);
    assert_eq!(
        fields(&scaled, "autoscaler"),
        json!({"f:spec": {"f:replicas": {}}})
    );
    assert_eq!(
        fields(&scaled, "kubectl"),
        json!({"f:spec": {".": {}, "f:containers": {".": {}, "k:{\"name\":\"c\"}": {".": {}, "f:name": {}}}}})
    );

    // A status writer owns status, and only that.
    let status = Writer {
        subresource: "status",
        ignored: &[&["spec"]],
        ..writer("kubelet")
    };
    let mut reported = scaled.clone();
    reported["status"] = json!({"replicas": 2});
    track(Type::Object, Some(&scaled), &mut reported, &status);
    assert_eq!(
        fields(&reported, "kubelet"),
        json!({"f:status": {"f:replicas": {}}})
    );

    // A removed field is nobody's.
    let mut removed = reported.clone();
    removed["spec"]
        .as_object_mut()
        .expect("object")
        .remove("replicas");
    track(Type::Object, Some(&reported), &mut removed, &writer("kubectl"));
    assert!(!managers(&removed).contains(&"autoscaler Update".to_owned()));

    // A client clears the managed fields; nobody is tracked from then on.
    let mut cleared = reported.clone();
    cleared["metadata"]["managedFields"] = json!([{}]);
    track(Type::Object, Some(&reported), &mut cleared, &writer("kubectl"));
    assert_eq!(managers(&cleared), Vec::<String>::new());
    let mut later = cleared.clone();
    later["spec"]["replicas"] = json!(9);
    track(Type::Object, Some(&cleared), &mut later, &writer("kubectl"));
    assert_eq!(managers(&later), Vec::<String>::new());
}

#[test]
fn before_the_first_apply() {
    let live = object(json!({"replicas": 1}));
    let error = applied(Some(&live), "a", json!({"replicas": 2})).expect_err("conflict");
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .spec.replicas"
    );
}

#[test]
fn kubectl_goes_over_to_the_server() {
    let mut live = object(json!({"replicas": 1}));
    let last = format!("{}\n", live);
    live["metadata"]["annotations"] = json!({LAST_APPLIED: last});
    track(
        Type::Object,
        None,
        &mut live,
        &writer("kubectl-client-side-apply"),
    );
    let new = applied(Some(&live), "kubectl", json!({"replicas": 2})).expect("kubectl's own field");
    assert_eq!(new["spec"]["replicas"], 2);
    let annotation: Value = serde_json::from_str(
        new["metadata"]["annotations"][LAST_APPLIED]
            .as_str()
            .expect("text"),
    )
    .expect("JSON");
    assert_eq!(annotation["spec"]["replicas"], 2);
    // Somebody else's change is a conflict all the same.
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(5);
    track(Type::Object, Some(&live), &mut scaled, &writer("scaler"));
    assert!(matches!(
        applied(Some(&scaled), "kubectl", json!({"replicas": 2})),
        Err(ApplyError::Conflict(_))
    ));
}

#[test]
fn refusals() {
    let refuse = |config: Value| {
        let error = apply(Type::Object, None, &config, &writer("a"), false).expect_err("refused");
        (error.status().code, error.to_string())
    };
    let subject = "failed to create typed patch object (/a; v1, Kind=Thing): ";
    for (spec, message) in [
        (json!({"bogus": 1}), ".spec.bogus: field not declared in schema"),
        (
            json!({"containers": [{"name": "c"}, {"name": "c"}]}),
            ".spec.containers: duplicate entries for key [name=\"c\"]",
        ),
        (
            json!({"containers": [{"image": "i"}]}),
            ".spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
        ),
        (
            json!({"containers": {}}),
            ".spec.containers: expected list, got &{map[]}",
        ),
        (json!({"selector": "x"}), ".spec.selector: expected map, got &{x}"),
        (
            json!({"replicas": "x"}),
            ".spec.replicas: expected numeric (int or float), got string",
        ),
        (
            json!({"replicas": "x", "bogus": 1}),
            "errors:\n  .spec.bogus: field not declared in schema\n  .spec.replicas: expected numeric (int or float), got string",
        ),
    ] {
        assert_eq!(refuse(object(spec)), (500, format!("{subject}{message}")));
    }
    assert_eq!(
        refuse(json!({"apiVersion": "v2"})),
        (
            400,
            "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1"
                .to_owned()
        )
    );
    assert_eq!(
        refuse(json!({"apiVersion": "v1", "metadata": {"managedFields": []}})),
        (400, "metadata.managedFields must be nil".to_owned())
    );
    let live = json!({"metadata": {"managedFields": [{"operation": "Fly"}]}});
    let error = applied(Some(&live), "a", json!({})).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "failed to decode managed fields: operation must be `Apply` or `Update`"
    );
}

#[test]
fn lists_keep_their_order() {
    let names = |list: &[&str]| -> Value { list.iter().map(|n| json!({"name": n})).collect() };
    for (live, config, wanted) in [
        (&["a", "b"][..], &["c"][..], &["a", "b", "c"][..]),
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&["a", "b", "c"], &["a", "x", "c"], &["a", "b", "x", "c"]),
        (&[], &["b", "a"], &["b", "a"]),
        (&["a", "b", "c", "d"], &["d", "b"], &["a", "c", "d", "b"]),
    ] {
        let mut object = object(json!({"containers": names(live)}));
        track(Type::Object, None, &mut object, &writer("u"));
        let new = applied(Some(&object), "a", json!({"containers": names(config)})).expect("applies");
        assert_eq!(new["spec"]["containers"], names(wanted), "{live:?} {config:?}");
    }
}

#[test]
fn sets_own_their_elements() {
    let with = |finalizers: Value| json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a", "finalizers": finalizers}});
    let live = apply(Type::Object, None, &with(json!(["x", "y"])), &writer("a"), false).expect("applies");
    let live = apply(
        Type::Object,
        Some(&live),
        &with(json!(["y", "z"])),
        &writer("b"),
        false,
    )
    .expect("applies");
    assert_eq!(live["metadata"]["finalizers"], json!(["x", "y", "z"]));
    assert_eq!(
        fields(&live, "b"),
        json!({"f:metadata": {"f:finalizers": {"v:\"y\"": {}, "v:\"z\"": {}}}})
    );
    let new = apply(Type::Object, Some(&live), &with(json!([])), &writer("a"), false).expect("applies");
    assert_eq!(new["metadata"]["finalizers"], json!(["y", "z"]));
}

#[test]
fn many_writers_become_one() {
    let mut live = object(json!({}));
    track(Type::Object, None, &mut live, &writer("first"));
    for i in 0..20 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{i:02}")] = json!("x");
        let name = format!("m{i:02}");
        let now = writer("")
            .now
            .checked_add(jiff::Span::new().seconds(i))
            .expect("in range");
        track(
            Type::Object,
            Some(&live),
            &mut new,
            &Writer { now, ..writer(&name) },
        );
        live = new;
    }
    let names = managers(&live);
    assert_eq!(names.len(), 10);
    assert!(names.contains(&"ancient-changes Update".to_owned()), "{names:?}");
    assert!(names.contains(&"m19 Update".to_owned()));
    let all = decode(&live["metadata"]["managedFields"]).expect("valid");
    let all = all
        .values()
        .fold(Set::default(), |all, owned| all.union(&owned.fields));
    assert_eq!(
        all,
        typed::field_set(Type::Object, &live)
            .difference(&never_owned())
            .union(&Set::of_fields(&[&["metadata", "labels"], &["spec"]]))
    );
}

#[test]
fn times_alone_are_no_change() {
    let live = applied(None, "a", json!({"replicas": 1})).expect("applies");
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["time"] = json!("2030-01-01T00:00:00Z");
    ignore_times(&live, &mut new);
    assert_eq!(new, live);
    new["metadata"]["managedFields"][0]["time"] = json!("2030-01-01T00:00:00Z");
    new["spec"]["replicas"] = json!(2);
    ignore_times(&live, &mut new);
    assert_eq!(
        new["metadata"]["managedFields"][0]["time"],
        "2030-01-01T00:00:00Z"
    );
}

/// Typed objects have no empty lists and maps: decoding drops them. Nobody can own one.
fn without_empty(value: &Value) -> Value {
    let is_empty =
        |v: &Value| v.as_object().is_some_and(Map::is_empty) || v.as_array().is_some_and(Vec::is_empty);
    match value {
        Value::Object(object) => {
            let kept = object.iter().map(|(k, v)| (k.clone(), without_empty(v)));
            Value::Object(kept.filter(|(_, v)| !is_empty(v)).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_empty).collect()),
        other => other.clone(),
    }
}

fn any_spec() -> impl Strategy<Value = Value> {
    let texts = || prop::collection::btree_map("[ab]", "[xy]", 0..3);
    let container = (prop::option::of("[ij]"), texts()).prop_map(|(image, env)| {
        let mut container = json!({"env": env});
        if let Some(image) = image {
            container["image"] = json!(image);
        }
        container
    });
    let containers = prop::collection::btree_map("[cde]", container, 0..3).prop_map(|map| {
        let named = map.into_iter().map(|(name, mut c)| {
            c["name"] = json!(name);
            c
        });
        Value::Array(named.collect())
    });
    let field = |name: &'static str, value: proptest::strategy::BoxedStrategy<Value>| {
        prop::option::of(value).prop_map(move |v| v.map(|v| (name, v)))
    };
    (
        field("replicas", (0..3).prop_map(|n| json!(n)).boxed()),
        field("containers", containers.boxed()),
        field(
            "args",
            prop::collection::vec("[xy]", 0..2).prop_map(|v| json!(v)).boxed(),
        ),
        field(
            "selector",
            texts().prop_map(|t| json!({"matchLabels": t})).boxed(),
        ),
        field("inner", Just(json!({"replicas": 1})).boxed()),
    )
        .prop_map(|(a, b, c, d, e)| {
            let fields = [a, b, c, d, e].into_iter().flatten();
            without_empty(&Value::Object(fields.map(|(k, v)| (k.to_owned(), v)).collect()))
        })
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(before in any_spec(), spec in any_spec()) {
        let live = applied(None, "a", before).expect("applies");
        let once = applied(Some(&live), "a", spec.clone()).expect("own fields never conflict");
        let twice = applied(Some(&once), "a", spec).expect("applies");
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn a_sole_applier_gets_what_it_says(before in any_spec(), spec in any_spec()) {
        let live = applied(None, "a", before).expect("applies");
        let new = applied(Some(&live), "a", spec.clone()).expect("applies");
        let wanted = typed::field_set(Type::Object, &object(spec));
        let got = typed::field_set(Type::Object, &new).difference(&Set::of_fields(&[&["metadata", "managedFields"]]));
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn forced_fields_change_hands(before in any_spec(), spec in any_spec()) {
        let live = applied(None, "a", before.clone()).expect("applies");
        let new = apply(Type::Object, Some(&live), &object(spec.clone()), &writer("b"), true).expect("forced");
        // Everything that b applied has b's value.
        let changed = merge::compare(Type::Object, &new, &merge::merge(Some(Type::Object), &new, &object(spec)));
        prop_assert!(changed.modified.is_empty() && changed.added.is_empty());
    }

    #[test]
    fn sets_survive_the_wire(value in any_json_without_null(), spec in any_spec()) {
        let set = typed::field_set(Type::Object, &object(spec.clone()));
        prop_assert_eq!(Set::from_fields_v1(&set.to_fields_v1()), Some(set.clone()));
        let other = typed::field_set(Type::Object, &object(json!({"raw": value, "replicas": 1})));
        prop_assert_eq!(set.union(&other), other.union(&set));
        prop_assert_eq!(set.intersection(&other), set.difference(&set.difference(&other)));
        prop_assert!(set.difference(&set).is_empty());
    }

    #[test]
    fn comparing_agrees_with_the_objects(old in any_spec(), new in any_spec()) {
        let (old, new) = (object(old), object(new));
        let c = merge::compare(Type::Object, &old, &new);
        let same = c.removed.is_empty() && c.modified.is_empty() && c.added.is_empty();
        prop_assert_eq!(same, old == new);
        let reverse = merge::compare(Type::Object, &new, &old);
        prop_assert_eq!(reverse.added, c.removed);
        prop_assert_eq!(reverse.modified, c.modified);
    }

    #[test]
    fn malformed_managed_fields_never_panic(entries in any_json_without_null()) {
        let _ = decode(&entries);
        let _ = Set::from_fields_v1(&entries);
    }
}
