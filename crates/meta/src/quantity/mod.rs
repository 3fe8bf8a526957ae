//! Quantities: `100m`, `1.5Gi`, `12e6`. Upstream: `k8s.io/apimachinery/pkg/api/resource`.
//!
//! A quantity here is a 128-bit integer times a power of ten, so it holds 38 decimal digits; upstream has no such
//! limit. Numbers beyond it are refused as not parseable, and sums saturate.

mod parse;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// In which family of suffixes a quantity is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`, powers of 1024.
    BinarySi,
    /// `12M`, powers of 1000.
    DecimalSi,
}

/// An exact amount that remembers how it was written.
#[derive(Debug, Clone)]
pub struct Quantity {
    /// The amount is `mantissa * 10^scale`.
    mantissa: i128,
    scale: i32,
    format: Format,
    /// The text as parsed, if upstream would print it unchanged.
    text: Option<String>,
}

/// Why a text is no quantity; the texts are upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number itself.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// A whole number of units.
    pub fn new(value: i64, format: Format) -> Self {
        Self::exact(i128::from(value), 0, format)
    }

    /// Thousandths of a unit.
    pub fn from_milli(value: i64, format: Format) -> Self {
        Self::exact(i128::from(value), -3, format)
    }

    /// Zero.
    pub fn zero() -> Self {
        Self::new(0, Format::DecimalSi)
    }

    fn exact(mantissa: i128, scale: i32, format: Format) -> Self {
        Self {
            mantissa,
            scale,
            format,
            text: None,
        }
    }

    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse::parse(text)
    }

    /// How it is printed.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        match self.mantissa.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// Whole units, rounded away from zero, saturating.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// Thousandths of a unit, rounded away from zero, saturating.
    pub fn milli_value(&self) -> i64 {
        self.scaled(-3)
    }

    /// The amount in units of `10^scale`, rounded away from zero, saturating.
    pub fn scaled(&self, scale: i32) -> i64 {
        let (value, _) = self.at_scale(scale);
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }

    /// The nearest `f64`.
    pub fn to_f64(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "the caller asks for an approximation")]
        let mantissa = self.mantissa as f64;
        mantissa * 10f64.powi(self.scale)
    }

    /// The sum. Zero takes the format of the other side, as upstream.
    pub fn add(&self, other: &Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        let scale = if self.is_zero() {
            other.scale
        } else if other.is_zero() {
            self.scale
        } else {
            self.scale.min(other.scale)
        };
        let sum = self
            .saturating_at(scale)
            .saturating_add(other.saturating_at(scale));
        Self::exact(sum, scale, format)
    }

    /// The difference.
    pub fn sub(&self, other: &Self) -> Self {
        self.add(&other.neg())
    }

    /// The amount with the other sign.
    pub fn neg(&self) -> Self {
        Self::exact(self.mantissa.saturating_neg(), self.scale, self.format)
    }

    /// The amount, `times` times.
    pub fn mul(&self, times: i64) -> Self {
        Self::exact(
            self.mantissa.saturating_mul(i128::from(times)),
            self.scale,
            self.format,
        )
    }

    /// The mantissa at a scale that is not above this one.
    fn saturating_at(&self, scale: i32) -> i128 {
        if self.mantissa == 0 {
            return 0;
        }
        let places = u32::try_from(self.scale - scale).unwrap_or(0);
        match 10i128.checked_pow(places) {
            Some(factor) => self.mantissa.saturating_mul(factor),
            None if self.mantissa < 0 => i128::MIN,
            None => i128::MAX,
        }
    }

    /// The amount in units of `10^scale`, rounded away from zero, and whether that lost nothing.
    fn at_scale(&self, scale: i32) -> (i128, bool) {
        if self.mantissa == 0 {
            return (0, true);
        }
        if self.scale >= scale {
            return (self.saturating_at(scale), true);
        }
        let places = u32::try_from(scale - self.scale).unwrap_or(u32::MAX);
        let Some(divisor) = 10i128.checked_pow(places) else {
            return (i128::from(self.sign()), false);
        };
        let (quotient, rest) = (self.mantissa / divisor, self.mantissa % divisor);
        if rest == 0 {
            (quotient, true)
        } else {
            (quotient + i128::from(self.sign()), false)
        }
    }

    /// The mantissa without its factors of ten, at a scale that is a multiple of three.
    fn thousands(&self) -> (i128, i32) {
        let (mut mantissa, mut scale) = (self.mantissa, self.scale);
        while mantissa % 10 == 0 {
            mantissa /= 10;
            scale += 1;
        }
        while scale.rem_euclid(3) != 0 {
            mantissa = mantissa.saturating_mul(10);
            scale -= 1;
        }
        (mantissa, scale)
    }
}

/// The canonical form: no precision lost, no fractional digits, the largest suffix that allows it.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            return f.write_str(text);
        }
        if self.mantissa == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi {
            let (mut value, exact) = self.at_scale(0);
            // Small or fractional amounts would be rounded: upstream shows them decimal.
            if exact && value.unsigned_abs() >= 1024 {
                let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
                let mut power = 0;
                while value % 1024 == 0 && power + 1 < suffixes.len() {
                    value /= 1024;
                    power += 1;
                }
                return write!(f, "{value}{}", suffixes[power]);
            }
        }
        let (mantissa, scale) = self.thousands();
        let suffix = match scale {
            0 => Some(""),
            _ if self.format == Format::DecimalExponent => None,
            -9 => Some("n"),
            -6 => Some("u"),
            -3 => Some("m"),
            3 => Some("k"),
            6 => Some("M"),
            9 => Some("G"),
            12 => Some("T"),
            15 => Some("P"),
            18 => Some("E"),
            _ => None,
        };
        match suffix {
            Some(suffix) => write!(f, "{mantissa}{suffix}"),
            None => write!(f, "{mantissa}e{scale}"),
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By amount, however written.
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_sign = self.sign().cmp(&other.sign());
        if by_sign != Ordering::Equal {
            return by_sign;
        }
        // An amount that overflows at the other's scale is the larger in magnitude: saturation keeps the order.
        let scale = self.scale.min(other.scale);
        self.saturating_at(scale).cmp(&other.saturating_at(scale))
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From a JSON string or number.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Null => return Ok(Self::zero()),
            other => other.to_string(),
        };
        Self::parse(text.trim()).map_err(serde::de::Error::custom)
    }
}
