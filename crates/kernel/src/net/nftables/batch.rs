//! One transaction: what to create, change and delete, in order.

use super::super::netlink::{APPEND, Attributes, CREATE, Messages, REQUEST};
use super::expression::{Expression, Verdict};
use super::userdata::{self, DataType};
use super::{Family, Generation, NEW_CHAIN, NEW_ELEMENTS, NEW_RULE, NEW_TABLE, SUBSYSTEM};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const DELETE_ELEMENTS: u16 = SUBSYSTEM | 14;

/// The header of the batch marks: the subsystem is named in its last field.
const BATCH_HEADER: [u8; 4] = [0, 0, 0, 10];
/// An attribute's length has 16 bits; a longer list goes into several messages.
const LIST_MAX_BYTES: usize = 60_000;
/// Largest key or value.
pub const DATA_MAX_BYTES: usize = 64;

/// What a chain at a hook is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// Sees the first packet of each connection, and may rewrite addresses.
    Nat,
    /// Sees every packet.
    Filter,
}

/// Where a base chain is called from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting = 0,
    /// To this host.
    Input = 1,
    /// Through this host.
    Forward = 2,
    /// From this host.
    Output = 3,
    /// After routing.
    Postrouting = 4,
}

/// Order among the chains of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority(pub i32);

/// A set, or with `value` a map.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    /// Name.
    pub name: &'a str,
    /// Key type.
    pub key: DataType<'a>,
    /// Value type; none for a set.
    pub value: Option<SetValue<'a>>,
    /// Changed from the packet path, with a lifetime for each element, holding at most this many.
    pub dynamic: Option<u32>,
    /// The last part of a key may be a range, and the key is one of several parts.
    pub ranges: bool,
}

/// Type of a map's values.
#[derive(Debug, Clone, Copy)]
pub enum SetValue<'a> {
    /// Data.
    Data(DataType<'a>),
    /// Verdicts.
    Verdict,
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Key bytes.
    pub key: Vec<u8>,
    /// In a set of ranges, the last key that belongs to the element; [`Element::key`] is the first.
    pub key_end: Option<Vec<u8>>,
    /// Value; none in a set.
    pub data: Option<ElementData>,
}

/// Value of a map's element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementData {
    /// Bytes.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// A transaction being written.
#[derive(Debug)]
pub struct Batch {
    messages: Messages,
    /// First message and description of every operation, for error messages.
    operations: Vec<(u32, String)>,
    sets: u32,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::begin(None)
    }

    /// A transaction that fails with `ERESTART` if anybody committed anything since `generation`.
    pub fn guarded(generation: Generation) -> Self {
        Self::begin(Some(generation))
    }

    fn begin(generation: Option<Generation>) -> Self {
        const GENERATION: u16 = 1;
        let mut messages = Messages::new();
        messages.message(BATCH_BEGIN, REQUEST, &BATCH_HEADER, |m| {
            if let Some(Generation(id)) = generation {
                m.be32(GENERATION, id);
            }
        });
        Self {
            messages,
            operations: Vec::new(),
            sets: 0,
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// A number that tells batches with different content apart (FNV-1a of the messages).
    pub fn fingerprint(&self) -> u64 {
        self.messages
            .as_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            })
    }

    pub(crate) fn finish(mut self) -> (Messages, Vec<(u32, String)>) {
        self.messages.message(BATCH_END, REQUEST, &BATCH_HEADER, |_| ());
        (self.messages, self.operations)
    }

    fn operation(
        &mut self,
        what: String,
        kind: u16,
        flags: u16,
        family: Family,
        body: impl FnOnce(&mut Messages),
    ) {
        self.operations.push((self.messages.count(), what));
        self.messages
            .message(kind, REQUEST | flags, &family.header(), body);
    }

    /// Creates a table, or changes the flags of an existing one: with [`super::OWNER`] this adopts a table whose
    /// owner is gone. The comment counts at creation only.
    pub fn add_table(&mut self, family: Family, name: &str, flags: u32, comment: &str) {
        self.operation(format!("add table {name}"), NEW_TABLE, CREATE, family, |m| {
            m.string(1, name);
            m.be32(2, flags);
            m.attribute(6, &userdata::comment(comment));
        });
    }

    /// Deletes a table with all that is in it.
    pub fn delete_table(&mut self, family: Family, name: &str) {
        self.operation(format!("delete table {name}"), DELETE_TABLE, 0, family, |m| {
            m.string(1, name)
        });
    }

    /// Creates a chain that other chains go to.
    pub fn add_chain(&mut self, family: Family, table: &str, name: &str) {
        self.operation(format!("add chain {name}"), NEW_CHAIN, CREATE, family, |m| {
            m.string(1, table);
            m.string(3, name);
        });
    }

    /// Deletes a chain with its rules; one that something leads to is an error (`EBUSY`).
    pub fn delete_chain(&mut self, family: Family, table: &str, name: &str) {
        self.operation(format!("delete chain {name}"), DELETE_CHAIN, 0, family, |m| {
            m.string(1, table);
            m.string(3, name);
        });
    }

    /// Creates a chain that is called from a hook.
    pub fn add_base_chain(
        &mut self,
        family: Family,
        table: &str,
        name: &str,
        kind: HookKind,
        hook: Hook,
        Priority(priority): Priority,
    ) {
        self.operation(format!("add chain {name}"), NEW_CHAIN, CREATE, family, |m| {
            m.string(1, table);
            m.string(3, name);
            m.nest(4, |m| {
                m.be32(1, hook as u32);
                m.be32(2, priority.cast_unsigned());
            });
            m.string(
                7,
                match kind {
                    HookKind::Nat => "nat",
                    HookKind::Filter => "filter",
                },
            );
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, family: Family, table: &str, chain: &str, expressions: &[Expression<'_>]) {
        self.operation(
            format!("add a rule to chain {chain}"),
            NEW_RULE,
            CREATE | APPEND,
            family,
            |m| {
                m.string(1, table);
                m.string(2, chain);
                m.nest(4, |m| {
                    for expression in expressions {
                        expression.write(m, family);
                    }
                });
            },
        );
    }

    /// Puts a rule with a remark at the head of a chain.
    pub fn insert_rule(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        expressions: &[Expression<'_>],
        comment: &str,
    ) {
        self.operation(
            format!("insert a rule into chain {chain}"),
            NEW_RULE,
            CREATE,
            family,
            |m| {
                m.string(1, table);
                m.string(2, chain);
                m.nest(4, |m| {
                    for expression in expressions {
                        expression.write(m, family);
                    }
                });
                m.attribute(7, &userdata::comment(comment));
            },
        );
    }

    /// Deletes a rule by the kernel's number of it.
    pub fn delete_rule(&mut self, family: Family, table: &str, chain: &str, handle: u64) {
        self.operation(
            format!("delete a rule of chain {chain}"),
            DELETE_RULE,
            0,
            family,
            |m| {
                m.string(1, table);
                m.string(2, chain);
                m.attribute(3, &handle.to_be_bytes());
            },
        );
    }

    /// Creates a set or map.
    pub fn add_set(&mut self, family: Family, table: &str, set: &Set<'_>) {
        const INTERVAL: u32 = 0x4;
        const MAP: u32 = 0x8;
        const TIMEOUT: u32 = 0x10;
        const FROM_PACKET_PATH: u32 = 0x20;
        const CONCATENATION: u32 = 0x80;
        const VERDICT_TYPE: u32 = 0xffff_ff00;
        let mut flags = 0;
        if set.value.is_some() {
            flags |= MAP;
        }
        if set.dynamic.is_some() {
            flags |= TIMEOUT | FROM_PACKET_PATH;
        }
        if set.ranges {
            flags |= INTERVAL | CONCATENATION;
        }
        self.sets += 1;
        let id = self.sets;
        self.operation(format!("add set {}", set.name), NEW_SET, CREATE, family, |m| {
            m.string(1, table);
            m.string(2, set.name);
            m.be32(3, flags);
            m.be32(4, set.key.number(family));
            m.be32(5, set.key.size(family));
            let value = match set.value {
                Some(SetValue::Data(value)) => {
                    m.be32(6, value.number(family));
                    m.be32(7, value.size(family));
                    Some(value)
                }
                Some(SetValue::Verdict) => {
                    m.be32(6, VERDICT_TYPE);
                    m.be32(7, 0);
                    None
                }
                None => None,
            };
            if let Some(size) = set.dynamic {
                m.nest(9, |m| m.be32(1, size));
            }
            if set.ranges {
                const LIST_ELEMENT: u16 = 1;
                const PARTS: u16 = 2;
                m.nest(9, |m| {
                    m.nest(PARTS, |m| {
                        for field in set.key.0 {
                            m.nest(LIST_ELEMENT, |m| m.be32(1, field.length(family)));
                        }
                    });
                });
            }
            m.be32(10, id);
            m.attribute(13, &userdata::set_remark(family, set.key, value));
        });
    }

    /// Adds elements; one that is there with another value is an error (`EEXIST`).
    pub fn add_elements(&mut self, family: Family, table: &str, set: &str, elements: &[Element]) {
        self.elements(
            NEW_ELEMENTS,
            CREATE,
            family,
            table,
            set,
            elements,
            "add elements to",
        );
    }

    /// Deletes elements by key; one that is not there is an error (`ENOENT`).
    pub fn delete_elements(&mut self, family: Family, table: &str, set: &str, elements: &[Element]) {
        self.elements(
            DELETE_ELEMENTS,
            0,
            family,
            table,
            set,
            elements,
            "delete elements from",
        );
    }

    #[expect(clippy::too_many_arguments, reason = "the two public callers name them")]
    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        family: Family,
        table: &str,
        set: &str,
        elements: &[Element],
        what: &str,
    ) {
        let mut rest = elements.iter().peekable();
        while rest.peek().is_some() {
            self.operation(format!("{what} set {set}"), kind, flags, family, |m| {
                m.string(1, table);
                m.string(2, set);
                m.nest(3, |m| {
                    let start = m.len();
                    while m.len() - start < LIST_MAX_BYTES
                        && let Some(element) = rest.next()
                    {
                        element.write(m, kind == NEW_ELEMENTS);
                    }
                });
            });
        }
    }
}

/// The attribute of an element that ends a range.
const KEY_END: u16 = 10;

impl Element {
    fn write(&self, m: &mut Messages, with_data: bool) {
        const LIST_ELEMENT: u16 = 1;
        const DATA_VALUE: u16 = 1;
        m.nest(LIST_ELEMENT, |m| {
            m.nest(1, |m| m.attribute(DATA_VALUE, &self.key));
            if let Some(end) = &self.key_end {
                m.nest(KEY_END, |m| m.attribute(DATA_VALUE, end));
            }
            match &self.data {
                Some(ElementData::Value(value)) if with_data => m.nest(2, |m| m.attribute(DATA_VALUE, value)),
                Some(ElementData::Verdict(verdict)) if with_data => m.nest(2, |m| verdict.write(m)),
                _ => (),
            }
        });
    }
}

/// Reads the elements of one part of a dump.
pub(super) fn read_elements(attributes: Attributes<'_>, into: &mut Vec<Element>) {
    const ELEMENTS: u16 = 3;
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    const DATA_VALUE: u16 = 1;
    const DATA_VERDICT: u16 = 2;
    for (_, element) in attributes.nested(ELEMENTS) {
        let element = Attributes(element);
        let Some(key) = element.nested(KEY).get(DATA_VALUE) else {
            continue;
        };
        let data = element.nested(DATA);
        let verdict = data.nested(DATA_VERDICT);
        let data = match (data.get(DATA_VALUE), verdict.be32(1)) {
            (Some(value), _) => Some(ElementData::Value(value.to_vec())),
            (None, Some(code)) => Verdict::read(code, verdict.string(2)).map(ElementData::Verdict),
            (None, None) => None,
        };
        let key_end = element.nested(KEY_END).get(DATA_VALUE);
        into.push(Element {
            key: key.to_vec(),
            key_end: key_end.map(<[u8]>::to_vec),
            data,
        });
    }
}
