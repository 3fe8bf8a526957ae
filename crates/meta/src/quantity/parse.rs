//! Reading quantities, with upstream's rounding and its rules about which texts stay as they were written.

use super::{Format, Quantity, QuantityError};

/// The finest amount there is: a billionth.
const NANO: i32 = -9;

/// Base and exponent of a suffix, and the format it announces.
fn interpret(suffix: &str) -> Option<(u32, i32, Format)> {
    let (base, exponent, format) = match suffix {
        "" => (10, 0, Format::DecimalSi),
        "n" => (10, -9, Format::DecimalSi),
        "u" => (10, -6, Format::DecimalSi),
        "m" => (10, -3, Format::DecimalSi),
        "k" => (10, 3, Format::DecimalSi),
        "M" => (10, 6, Format::DecimalSi),
        "G" => (10, 9, Format::DecimalSi),
        "T" => (10, 12, Format::DecimalSi),
        "P" => (10, 15, Format::DecimalSi),
        "E" => (10, 18, Format::DecimalSi),
        "Ki" => (2, 10, Format::BinarySi),
        "Mi" => (2, 20, Format::BinarySi),
        "Gi" => (2, 30, Format::BinarySi),
        "Ti" => (2, 40, Format::BinarySi),
        "Pi" => (2, 50, Format::BinarySi),
        "Ei" => (2, 60, Format::BinarySi),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            (10, exponent.parse::<i32>().ok()?, Format::DecimalExponent)
        }
    };
    Some((base, exponent, format))
}

/// Sign, whole digits without leading zeros, fractional digits, suffix.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits_end = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (whole, rest) = unsigned.split_at(digits_end(unsigned));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits_end(rest)),
        None => ("", rest),
    };
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    Ok(Parts {
        negative,
        whole: whole.trim_start_matches('0'),
        fraction,
        suffix,
    })
}

pub(super) fn parse(text: &str) -> Result<Quantity, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let parts = split(text)?;
    let (base, exponent, format) = interpret(parts.suffix).ok_or(QuantityError::Suffix)?;
    let whole = if parts.whole.is_empty() { "0" } else { parts.whole };
    let digits = format!("{whole}{}", parts.fraction);
    let mut mantissa: i128 = digits.parse().map_err(|_| QuantityError::Numeric)?;
    let places = i32::try_from(parts.fraction.len()).map_err(|_| QuantityError::Numeric)?;

    let keep = keeps_text(&parts, whole, &digits, mantissa, exponent, format);
    let mut scale = -places;
    if base == 2 {
        mantissa = mantissa
            .checked_mul(1i128 << exponent)
            .ok_or(QuantityError::Numeric)?;
    } else {
        scale = scale.checked_add(exponent).ok_or(QuantityError::Numeric)?;
    }
    let mut quantity = Quantity::exact(mantissa, scale, format);
    if quantity.scale < NANO {
        // Away from zero: who asks for a little gets a little.
        let (rounded, _) = quantity.at_scale(NANO);
        quantity = Quantity::exact(rounded, NANO, format);
    }
    if format == Format::BinarySi {
        let one = Quantity::new(1, Format::DecimalSi);
        let max = Quantity::new(i64::MAX, format);
        if quantity > max {
            quantity = max;
        } else if quantity.sign() > 0 && quantity < one {
            quantity.format = Format::DecimalSi;
        }
    }
    if parts.negative {
        quantity = quantity.neg();
    }
    if keep {
        quantity.text = Some(text.to_owned());
    }
    Ok(quantity)
}

/// Whether upstream takes its fast path and remembers the text: it counts as canonical already. The rule is
/// upstream's to the letter, quirks included (`1.500` stays).
fn keeps_text(
    parts: &Parts<'_>,
    whole: &str,
    digits: &str,
    value: i128,
    exponent: i32,
    format: Format,
) -> bool {
    let places = parts.fraction.len();
    let length = whole.len() + places;
    match format {
        Format::BinarySi => {
            let bits = usize::try_from(exponent).unwrap_or(0);
            places == 0 && length + bits * 3 / 10 < 15 && value & 7 != 0
        }
        Format::DecimalSi | Format::DecimalExponent => {
            let places = i32::try_from(places).unwrap_or(i32::MAX);
            let scale = exponent.saturating_sub(places);
            length <= 18
                && scale >= NANO
                && scale % 3 == 0
                && !digits.ends_with("000")
                && !digits.starts_with('0')
        }
    }
}
