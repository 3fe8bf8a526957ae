//! Values without declared fields. Several are messages of their own in protobuf and plain values in JSON.

use super::wire::{self, Payload};
use super::{ProtobufError, Result};
use crate::schema::Scalar;
use coracle_meta::timestamp::{format_micro_time, format_time};
use jiff::Timestamp;
use serde_json::Value;

#[expect(
    clippy::cast_possible_wrap,
    reason = "protobuf writes negative numbers as two's complement"
)]
pub fn read(scalar: Scalar, payload: Payload) -> Result<Value> {
    Ok(match scalar {
        Scalar::String => payload.text()?.into(),
        Scalar::Bytes => base64(payload.bytes()?).into(),
        Scalar::Bool => (payload.number()? != 0).into(),
        // A Duration, alone among the integers of the API, is a message.
        Scalar::Int64 if matches!(payload, Payload::Bytes(_)) => (number(payload.bytes()?, 1)? as i64).into(),
        Scalar::Int32 | Scalar::Int64 => (payload.number()? as i64).into(),
        Scalar::Double => f64::from_bits(payload.number()?).into(),
        Scalar::Quantity => text(payload.bytes()?, 1)?.into(),
        Scalar::IntOrString => {
            let bytes = payload.bytes()?;
            match number(bytes, 1)? {
                0 => (number(bytes, 2)? as i64).into(),
                _ => text(bytes, 3)?.into(),
            }
        }
        Scalar::Time => time(payload.bytes()?)?.map(format_time).into(),
        Scalar::MicroTime => time(payload.bytes()?)?.map(format_micro_time).into(),
        Scalar::Opaque | Scalar::Any => raw_json(payload.bytes()?)?,
    })
}

/// `RawExtension`, `FieldsV1`, `JSON`: JSON text in field 1.
pub fn raw_json(bytes: &[u8]) -> Result<Value> {
    match text(bytes, 1)? {
        "" => Ok(Value::Null),
        json => serde_json::from_str(json).map_err(|_| ProtobufError::Malformed("embedded JSON")),
    }
}

fn field(bytes: &[u8], wanted: u32) -> Result<Option<Payload<'_>>> {
    let mut found = None;
    for item in wire::fields(bytes) {
        let (number, payload) = item?;
        if number == wanted {
            found = Some(payload);
        }
    }
    Ok(found)
}

fn text(bytes: &[u8], number: u32) -> Result<&str> {
    field(bytes, number)?.map_or(Ok(""), Payload::text)
}

fn number(bytes: &[u8], number: u32) -> Result<u64> {
    field(bytes, number)?.map_or(Ok(0), Payload::number)
}

/// Seconds and nanoseconds; an empty message is Go's zero time.
#[expect(
    clippy::cast_possible_wrap,
    reason = "protobuf writes negative numbers as two's complement"
)]
fn time(bytes: &[u8]) -> Result<Option<Timestamp>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let seconds = number(bytes, 1)? as i64;
    let nanos = i32::try_from(number(bytes, 2)?).map_err(|_| ProtobufError::Malformed("nanoseconds"))?;
    let time = Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Malformed("time"))?;
    Ok(Some(time))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for n in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * n) & 63) as usize];
            text.push(if n <= chunk.len() { digit.into() } else { '=' });
        }
    }
    text
}
