//! `25%` or `2` of something. Upstream: `k8s.io/apimachinery/pkg/util/intstr`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The number that is meant out of `total`. Text that is no percentage counts as 0; validation does not let it in.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|number| number.parse::<i64>().ok());
            let hundredths = percent.unwrap_or_default() * i64::from(total);
            let whole = if round_up {
                (hundredths + 99).div_euclid(100)
            } else {
                hundredths.div_euclid(100)
            };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        assert_eq!(scaled(&percent("25%"), 10, true), 3);
        assert_eq!(scaled(&percent("25%"), 10, false), 2);
        assert_eq!(scaled(&percent("100%"), 7, true), 7);
        assert_eq!(scaled(&percent("0%"), 7, true), 0);
        assert_eq!(scaled(&IntOrString::Int(3), 7, true), 3);
    }
}
