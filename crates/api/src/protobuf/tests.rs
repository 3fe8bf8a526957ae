//! Against bytes that upstream's own encoder wrote (`staging/src/k8s.io/api/testdata`).

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

/// Objects with every field filled in, as upstream writes them in both forms. `CORACLE_PROTOBUF_FIXTURES` names
/// another directory of such pairs: `staging/src/k8s.io/api/testdata/HEAD` of a Kubernetes source tree has all kinds.
#[test]
fn upstream_objects_read_the_same_in_both_forms() {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/src/protobuf/fixtures");
    let directory = std::env::var("CORACLE_PROTOBUF_FIXTURES").unwrap_or_else(|_| own.to_owned());
    let mut read = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "pb") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let unknown = open(&bytes).unwrap();
        let gvk = GroupVersionKind::from_api_version(unknown.api_version, unknown.kind);
        let Some(ty) = crate::schema::lookup(&gvk) else {
            continue;
        };
        let json = std::fs::read(path.with_extension("json")).unwrap();
        let mut expected = crate::schema::decode(ty, &json).unwrap().value;
        let fields = expected.as_object_mut().unwrap();
        fields.remove("apiVersion");
        fields.remove("kind");
        let decoded = crate::schema::decode_value(ty, &unknown.decode(&gvk).unwrap()).unwrap();
        assert_eq!(decoded.strict, Vec::<String>::new(), "{}", path.display());
        assert_eq!(decoded.value, expected, "{}", path.display());
        read += 1;
    }
    assert!(read >= 4, "{read}");
}
