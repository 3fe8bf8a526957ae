//! Types of keys and values, and the remarks on sets that `nft list ruleset` needs to print maps that it can read
//! again. The kernel stores the remarks and does not look at them. Source: nftables' include/linux/… and libnftnl udata.

use super::Family;

/// What a key part or a value is. Every part is padded to four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Source address.
    SourceAddress,
    /// Destination address.
    DestinationAddress,
    /// IP protocol number.
    Protocol,
    /// Destination port.
    DestinationPort,
    /// Packet priority, a 32-bit number in host byte order.
    Priority,
    /// A random number below a bound, in host byte order.
    Random {
        /// The bound.
        modulus: u32,
    },
}

impl Field {
    /// Size in bytes, padding included.
    pub fn size(self, family: Family) -> u32 {
        match (self, family) {
            (Field::SourceAddress | Field::DestinationAddress, Family::Ip6) => 16,
            _ => 4,
        }
    }

    /// Size in bytes without padding.
    pub(crate) fn length(self, family: Family) -> u32 {
        match self {
            Field::Protocol => 1,
            Field::DestinationPort => 2,
            _ => self.size(family),
        }
    }

    /// `enum datatypes` of nftables.
    fn type_number(self, family: Family) -> u32 {
        const INTEGER: u32 = 4;
        const IPV4: u32 = 7;
        const IPV6: u32 = 8;
        const INET_PROTO: u32 = 12;
        const INET_SERVICE: u32 = 13;
        const CLASSID: u32 = 23;
        match (self, family) {
            (Field::SourceAddress | Field::DestinationAddress, Family::Ip) => IPV4,
            (Field::SourceAddress | Field::DestinationAddress, Family::Ip6) => IPV6,
            (Field::Protocol, _) => INET_PROTO,
            (Field::DestinationPort, _) => INET_SERVICE,
            (Field::Priority, _) => CLASSID,
            (Field::Random { .. }, _) => INTEGER,
        }
    }

    /// The expression that the part comes from, as nftables writes it down.
    fn expression(self, family: Family) -> Vec<u8> {
        const PAYLOAD: u32 = 7;
        const META: u32 = 9;
        const NUMGEN: u32 = 23;
        const TRANSPORT: u32 = 11;
        const META_L4PROTO: u32 = 16;
        const META_PRIORITY: u32 = 2;
        const RANDOM: u32 = 1;
        let header = match family {
            Family::Ip => 12,
            Family::Ip6 => 13,
        };
        let (kind, parts): (u32, Vec<u32>) = match (self, family) {
            (Field::SourceAddress, Family::Ip) => (PAYLOAD, vec![header, 11]),
            (Field::DestinationAddress, Family::Ip) => (PAYLOAD, vec![header, 12]),
            (Field::SourceAddress, Family::Ip6) => (PAYLOAD, vec![header, 8]),
            (Field::DestinationAddress, Family::Ip6) => (PAYLOAD, vec![header, 9]),
            (Field::Protocol, _) => (META, vec![META_L4PROTO]),
            (Field::DestinationPort, _) => (PAYLOAD, vec![TRANSPORT, 2]),
            (Field::Priority, _) => (META, vec![META_PRIORITY]),
            (Field::Random { modulus }, _) => (NUMGEN, vec![RANDOM, modulus, 0]),
        };
        let mut inner = Vec::new();
        for (index, part) in (0u8..).zip(parts) {
            tlv(&mut inner, index, &part.to_ne_bytes());
        }
        let mut outer = Vec::new();
        tlv(&mut outer, 0, &kind.to_ne_bytes());
        tlv(&mut outer, 1, &inner);
        outer
    }
}

/// Type of a key or a value: one part, or several one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct DataType<'a>(pub &'a [Field]);

impl DataType<'_> {
    /// Size in bytes.
    pub fn size(self, family: Family) -> u32 {
        self.0.iter().map(|field| field.size(family)).sum()
    }

    /// The number that names the type: six bits a part.
    pub(crate) fn number(self, family: Family) -> u32 {
        self.0
            .iter()
            .fold(0, |number, field| number << 6 | field.type_number(family))
    }

    fn typeof_expression(self, family: Family) -> Vec<u8> {
        const CONCAT: u32 = 13;
        if let [field] = self.0 {
            return field.expression(family);
        }
        let mut parts = Vec::new();
        for (index, field) in (0u8..).zip(self.0) {
            tlv(&mut parts, index, &field.expression(family));
        }
        let mut concat = Vec::new();
        tlv(&mut concat, 0, &CONCAT.to_ne_bytes());
        tlv(&mut concat, 1, &parts);
        concat
    }

    /// 0: mixed, 1: host, 2: network byte order.
    fn byte_order(self) -> u32 {
        match self.0 {
            [Field::Priority | Field::Random { .. }] => 1,
            [_] => 2,
            _ => 0,
        }
    }
}

/// The remark on a set or map.
pub(crate) fn set_remark(family: Family, key: DataType<'_>, value: Option<DataType<'_>>) -> Vec<u8> {
    const KEY_BYTE_ORDER: u8 = 0;
    const DATA_BYTE_ORDER: u8 = 1;
    const KEY_TYPEOF: u8 = 3;
    const DATA_TYPEOF: u8 = 4;
    let mut remark = Vec::new();
    tlv(&mut remark, KEY_BYTE_ORDER, &key.byte_order().to_ne_bytes());
    if let Some(value) = value {
        tlv(&mut remark, DATA_BYTE_ORDER, &value.byte_order().to_ne_bytes());
    }
    tlv(&mut remark, KEY_TYPEOF, &key.typeof_expression(family));
    if let Some(value) = value {
        tlv(&mut remark, DATA_TYPEOF, &value.typeof_expression(family));
    }
    remark
}

/// A remark for people on a table or a rule.
pub(crate) fn comment(text: &str) -> Vec<u8> {
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    let mut remark = Vec::new();
    tlv(&mut remark, 0, &value);
    remark
}

pub(crate) fn read_comment(remark: &[u8]) -> Option<String> {
    let &[0, length, ref value @ ..] = remark else {
        return None;
    };
    let value = value.get(..usize::from(length))?;
    String::from_utf8(value.strip_suffix(&[0])?.to_vec()).ok()
}

fn tlv(into: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u8::try_from(value.len()).expect("remarks are made of a handful of fields");
    into.push(kind);
    into.push(length);
    into.extend_from_slice(value);
}
