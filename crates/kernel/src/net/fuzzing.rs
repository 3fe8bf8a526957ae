//! Bytes that a kernel may have sent, or may not: for tests and fuzzing.

use super::netlink::{Attributes, Messages, each_message};
use super::nftables::{Batch, Family, fuzzing as nftables};
use super::{conntrack, rtnetlink};

/// Reads a received buffer in every way in which one is read. Panics if elements do not read back as they were written.
pub fn read(bytes: &[u8]) {
    each_message(bytes, |_, _, _, payload| read_payload(payload));
    read_payload(bytes);
}

fn read_payload(payload: &[u8]) {
    conntrack::parse(payload);
    rtnetlink::parse(payload);
    nftables::read_comment(payload);
    let elements = nftables::read_elements(Attributes(payload));
    // What is longer than an attribute cannot have been in one.
    let mut batch = Batch::new();
    batch.add_elements(Family::Ip, "table", "set", &elements);
    let (messages, _) = batch.finish();
    let mut again = Vec::new();
    each_message(messages.as_bytes(), |_, _, _, payload| {
        again.extend(nftables::read_elements(Attributes(
            payload.get(4..).unwrap_or_default(),
        )));
    });
    assert_eq!(elements, again);
}

/// A message with elements of a set, as a kernel sends it.
pub fn seed() -> Vec<u8> {
    let mut messages = Messages::new();
    messages.message(0x0a0c, 2, &[2, 0, 0, 0], |m| {
        m.string(1, "table");
        m.nest(3, |m| {
            m.nest(1, |m| {
                m.nest(1, |m| m.attribute(1, &[10, 96, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]));
                m.nest(10, |m| m.attribute(1, &[10, 96, 0, 9, 6, 0, 0, 0, 0, 80, 0, 0]));
                m.nest(2, |m| m.attribute(1, &[10, 244, 0, 5, 0x1f, 0x90, 0, 0]));
            });
            m.nest(1, |m| {
                m.nest(1, |m| m.attribute(1, &[7, 0, 0, 0]));
                m.nest(2, |m| {
                    m.nest(2, |m| {
                        m.be32(1, (-4_i32).cast_unsigned());
                        m.string(2, "chain");
                    })
                });
            });
        });
    });
    messages.as_bytes().to_vec()
}
