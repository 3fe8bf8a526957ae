//! What can be checked without a kernel: bytes on the wire.

use super::fuzzing;
use super::netlink::{Attributes, Messages};
use proptest::prelude::*;

#[test]
fn attributes_are_padded_and_read_back() {
    let mut messages = Messages::new();
    messages.message(7, 1, &[1, 2, 3, 4], |m| {
        m.string(1, "ab");
        m.nest(2, |m| m.be32(5, 0x0102_0304));
    });
    let bytes = messages.as_bytes();
    assert_eq!(bytes.len(), 16 + 4 + 8 + 4 + 8);
    assert_eq!(bytes[..4], 40u32.to_ne_bytes());
    let attributes = Attributes(&bytes[20..]);
    assert_eq!(attributes.string(1), Some("ab"));
    assert_eq!(attributes.nested(2).be32(5), Some(0x0102_0304));
    assert_eq!(attributes.get(3), None);
}

#[test]
fn malformed_attributes_end_the_list() {
    assert_eq!(Attributes(&[9, 0, 1, 0, 0]).into_iter().count(), 0);
    assert_eq!(Attributes(&[2, 0, 1, 0, 0, 0, 0, 0]).into_iter().count(), 0);
    assert_eq!(Attributes(&[4]).into_iter().count(), 0);
}

/// A message of a kernel with some bytes changed and its end cut off, or noise.
fn message_like() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let mutated = (changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(changes, end, cut)| {
        let mut bytes = fuzzing::seed();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    });
    prop_oneof![4 => mutated, 1 => prop::collection::vec(any::<u8>(), 0..400)]
}

#[test]
fn the_seed_has_elements() {
    let seed = fuzzing::seed();
    let elements = super::nftables::fuzzing::read_elements(Attributes(&seed[20..]));
    assert_eq!(elements.len(), 2);
    assert!(elements.iter().all(|element| element.data.is_some()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn anything_is_read_or_passed_over(bytes in message_like()) {
        fuzzing::read(&bytes);
    }
}
