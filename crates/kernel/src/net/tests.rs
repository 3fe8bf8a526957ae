//! What can be checked without a kernel: bytes on the wire.

use super::netlink::{Attributes, Messages};

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
