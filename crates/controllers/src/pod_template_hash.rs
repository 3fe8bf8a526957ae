//! A short name for a pod template, so that each template has a ReplicaSet of its own.
//! Upstream: `ComputeHash` in `pkg/controller/controller_utils.go`.
//!
//! Upstream hashes a dump of Go structs; this hashes the JSON, so the names differ from upstream's, but they have the
//! same form and properties.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The label that tells the pods of one template from those of another.
pub(crate) const LABEL: &str = "pod-template-hash";

/// Letters and digits that make no words. Upstream: `k8s.io/apimachinery/pkg/util/rand`.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The name; `collisions` makes another one of the same template.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let json = serde_json::to_vec(template).expect("API objects have string keys only");
    let mut hash: u32 = 0x811c_9dc5;
    let mut add = |byte: &u8| {
        hash ^= u32::from(*byte);
        hash = hash.wrapping_mul(0x0100_0193);
    };
    json.iter().for_each(&mut add);
    if let Some(collisions) = collisions {
        collisions.to_le_bytes().iter().for_each(&mut add);
    }
    let digits = hash.to_string();
    let letters = digits
        .bytes()
        .map(|digit| ALPHABET[usize::from(digit) % ALPHABET.len()]);
    letters.map(char::from).collect()
}
