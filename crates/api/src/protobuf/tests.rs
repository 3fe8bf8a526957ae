//! Bytes put together by hand from the field numbers of upstream's `generated.proto` files.

use super::*;
use coracle_meta::patch::Schema;
use serde_json::json;

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    out.extend_from_slice(bytes);
    out
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
}

#[test]
fn a_config_map() {
    let metadata = [field(1, b"a"), field(2, b""), field(8, b"")].concat();
    let entry = [field(1, b"key"), field(2, b"value")].concat();
    let binary = [field(1, b"bin"), field(2, &[1, 2, 3, 4])].concat();
    // `immutable` is a pointer: its false is kept. The unknown field 15 is dropped.
    let raw = [
        field(1, &metadata),
        field(2, &entry),
        field(3, &binary),
        vec![4 << 3, 0],
        field(15, b"x"),
    ]
    .concat();
    let bytes = envelope("v1", "ConfigMap", &raw);
    let unknown = open(&bytes).unwrap();
    assert_eq!((unknown.api_version, unknown.kind), ("v1", "ConfigMap"));
    assert_eq!(
        unknown
            .decode(&GroupVersionKind::new("", "v1", "ConfigMap"))
            .unwrap(),
        json!({ "metadata": {"name": "a"}, "data": {"key": "value"}, "binaryData": {"bin": "AQIDBA=="}, "immutable": false })
    );
}

#[test]
fn damaged_bytes_are_refused() {
    assert_eq!(open(b"{}"), Err(ProtobufError::Magic));
    let bytes = envelope("v1", "ConfigMap", &field(1, &field(1, b"name")));
    for length in MAGIC.len() + 1..bytes.len() {
        let gvk = GroupVersionKind::new("", "v1", "ConfigMap");
        let result = open(&bytes[..length]).and_then(|unknown| unknown.decode(&gvk));
        // A cut between two fields of the envelope leaves an empty object.
        assert!(result.is_err() || result == Ok(json!({})), "{length}");
    }
}

/// Every field number leads to a field that the schema knows, or the table is of another version.
#[test]
fn the_table_fits_the_schema() {
    let mut checked = 0;
    for ty in crate::schema::types() {
        let Some(entry) = ty.name().and_then(table::by_name) else {
            continue;
        };
        for number in 1..200 {
            if let Some(Field::Named { name, .. }) = entry.field(number) {
                assert!(ty.child(name).is_some(), "{:?} has no {name}", ty.name());
                checked += 1;
            }
        }
    }
    assert!(checked > 1500, "{checked}");
}

fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

/// Messages that stand in the object under another name or form: IntOrString, Quantity, Time, and a Volume, whose
/// source is a message on the wire and no field of its own in JSON.
#[test]
fn forms_that_differ_between_wire_and_json() {
    let by_name = [number(1, 1), field(3, b"web")].concat();
    let by_number = [number(1, 0), number(2, 80)].concat();
    let port = |name: &[u8], target: &[u8]| {
        [
            field(1, name),
            field(2, b"TCP"),
            number(3, 80),
            field(4, target),
            number(5, 0),
        ]
        .concat()
    };
    let selector = [field(1, b"app"), field(2, b"x")].concat();
    let spec = [
        field(1, &port(b"a", &by_name)),
        field(1, &port(b"b", &by_number)),
        field(2, &selector),
        field(4, b"ClusterIP"),
    ]
    .concat();
    // Seconds of the moment 1970-01-01T00:01:00Z.
    let metadata = [field(1, b"s"), field(3, b"default"), field(8, &number(1, 60))].concat();
    let raw = [field(1, &metadata), field(2, &spec), field(3, &field(1, b""))].concat();
    let service = GroupVersionKind::new("", "v1", "Service");
    let bytes = envelope("v1", "Service", &raw);
    let decoded = open(&bytes).unwrap().decode(&service).unwrap();
    assert_eq!(decoded["metadata"]["creationTimestamp"], "1970-01-01T00:01:00Z");
    assert_eq!(decoded["spec"]["ports"][0]["targetPort"], "web");
    assert_eq!(decoded["spec"]["ports"][1]["targetPort"], 80);
    assert_eq!(decoded["spec"]["selector"], json!({"app": "x"}));

    let limits = [field(1, b"cpu"), field(2, &field(1, b"500m"))].concat();
    let container = [field(1, b"c"), field(2, b"i"), field(8, &field(1, &limits))].concat();
    let volume = [field(1, b"scratch"), field(2, &field(2, &field(1, b"Memory")))].concat();
    let spec = [field(1, &volume), field(2, &container), field(3, b"Always")].concat();
    let pod = GroupVersionKind::new("", "v1", "Pod");
    let bytes = envelope(
        "v1",
        "Pod",
        &[field(1, &field(1, b"p")), field(2, &spec)].concat(),
    );
    assert_eq!(
        open(&bytes).unwrap().decode(&pod).unwrap(),
        json!({"metadata": {"name": "p"}, "spec": {
            "volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory"}}],
            "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "500m"}}}],
            "restartPolicy": "Always",
        }})
    );
}
