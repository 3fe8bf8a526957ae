//! The wire format: numbered fields. <https://protobuf.dev/programming-guides/encoding/>

use super::{ProtobufError, Result};

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Payload<'a> {
    pub fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::Malformed("a number where bytes are expected")),
        }
    }

    pub fn text(self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| ProtobufError::Malformed("text that is not UTF-8"))
    }

    pub fn number(self) -> Result<u64> {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => Ok(number),
            Self::Fixed32(number) => Ok(number.into()),
            Self::Bytes(_) => Err(ProtobufError::Malformed("bytes where a number is expected")),
        }
    }
}

/// The fields of a message, in order.
pub fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u32, Payload<'_>)>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let field = field(&mut bytes);
        if field.is_err() {
            bytes = &[];
        }
        Some(field)
    })
}

fn field<'a>(bytes: &mut &'a [u8]) -> Result<(u32, Payload<'a>)> {
    let tag = varint(bytes)?;
    let number = u32::try_from(tag >> 3).map_err(|_| ProtobufError::Malformed("field number"))?;
    let payload = match tag & 7 {
        0 => Payload::Varint(varint(bytes)?),
        1 => Payload::Fixed64(u64::from_le_bytes(array(bytes)?)),
        2 => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| ProtobufError::Malformed("length"))?;
            Payload::Bytes(take(bytes, length)?)
        }
        5 => Payload::Fixed32(u32::from_le_bytes(array(bytes)?)),
        _ => return Err(ProtobufError::Malformed("wire type")),
    };
    Ok((number, payload))
}

/// A number in groups of seven bits, the lowest first.
pub fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = array(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(ProtobufError::Malformed("varint"))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, rest) = bytes
        .split_at_checked(length)
        .ok_or(ProtobufError::Malformed("unexpected EOF"))?;
    *bytes = rest;
    Ok(taken)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (taken, rest) = bytes
        .split_first_chunk()
        .ok_or(ProtobufError::Malformed("unexpected EOF"))?;
    *bytes = rest;
    Ok(*taken)
}
